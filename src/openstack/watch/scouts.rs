//! How many of a crowd that no list serves are looked at.
//!
//! While nothing is finished, a few are looked at, in turns, instead of all: they stand for the others. Each one that is
//! found finished lets more be looked at, first those whose look is due, then those that have waited as long; so once much
//! is finished, all of it is found at once. A look at what is finished is one that has to be made anyway.

use std::time::Duration;
use tokio::time::Instant;

/// One in so many is looked at per tick.
const SCOUTS: usize = 16;

/// So many more may be looked at for each one that was found finished.
const MORE_AFTER_A_FIND: usize = 2;

/// How long a tick is: at first, after a find, and at the most patient.
const FIRST_TICK: Duration = Duration::from_millis(250);
const LONGEST_TICK: Duration = Duration::from_millis(1500);

/// The looks that may be made now.
#[derive(Debug)]
pub(super) struct Scouts {
    left: usize,
    /// How long what was found finished last had been waited for, and how many more may be looked at for that.
    found_after: Duration,
    more: usize,
    tick: Duration,
    next_tick: Instant,
}

impl Scouts {
    /// The first are there at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: 0, found_after: Duration::ZERO, more: 0, tick: FIRST_TICK, next_tick: now }
    }

    /// Whether something that has been waited for since then is worth a look that is not due.
    pub(super) fn expect(&self, since: Instant, now: Instant) -> bool {
        self.more > 0 && now.saturating_duration_since(since) >= self.found_after
    }

    /// Takes one for a look; none are left before the time that is given back.
    pub(super) fn send(&mut self, now: Instant, crowd: usize) -> Result<(), Instant> {
        if self.next_tick <= now {
            self.left = crowd.div_ceil(SCOUTS);
            self.next_tick = now + self.tick;
            self.tick = (self.tick * 5 / 4).min(LONGEST_TICK);
        }
        if self.more > 0 {
            self.more -= 1;
        } else {
            self.left = self.left.checked_sub(1).ok_or(self.next_tick)?;
        }
        Ok(())
    }

    /// One has found finished what had been waited for so long.
    pub(super) fn found(&mut self, now: Instant, waited: Duration) {
        self.more += MORE_AFTER_A_FIND;
        self.found_after = waited;
        self.tick = FIRST_TICK;
        self.next_tick = self.next_tick.min(now + FIRST_TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_TICK, Scouts};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn few_are_sent_while_nothing_is_found_and_ever_more_once_something_is() {
        let start = Instant::now();
        let mut scouts = Scouts::new(start);
        let sent = |scouts: &mut Scouts, now| (0..100).take_while(|_| scouts.send(now, 100).is_ok()).count();
        assert_eq!(sent(&mut scouts, start), 7);
        let next = scouts.send(start, 100).unwrap_err();
        assert!(next > start);
        assert_eq!(sent(&mut scouts, next), 7);
        for finds in [1, 2, 4, 8] {
            (0..finds).for_each(|_| scouts.found(next, Duration::from_secs(1)));
            assert!(scouts.expect(start, start + Duration::from_secs(1)));
            assert!(!scouts.expect(start, start + Duration::from_millis(999)));
            assert_eq!(sent(&mut scouts, next), finds * 2);
            assert!(!scouts.expect(start, start + Duration::from_secs(1)));
        }
        let mut now = next;
        for _ in 0..20 {
            let next = scouts.send(now, 1).map_or_else(|next| next, |()| now);
            assert!(next <= now + LONGEST_TICK);
            now = next.max(now + Duration::from_millis(1));
        }
    }
}
