//! When to look: how long changes usually take, learned per kind of change.

use std::collections::HashMap;
use std::time::Duration;

/// When the first look at a change comes, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstLook {
    /// As long as nothing is known; and the latest, whatever was learned: what took long under load may be quick now.
    pub guess: Duration,
    /// The earliest, whatever was learned: such a change is never over before, so a look would show nothing.
    pub never_before: Duration,
}

/// That of changes of which no more is known.
pub(super) const FIRST_LOOK: FirstLook = FirstLook { guess: Duration::from_millis(250), never_before: Duration::ZERO };

/// For what is not a change: it only has to be looked up.
pub(super) const AT_ONCE: FirstLook = FirstLook { guess: Duration::ZERO, never_before: Duration::ZERO };

/// A learned time is trusted up to this multiple of the time already waited.
const TRUST: u32 = 12;

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The shortest pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

/// How long changes take, by what they are called.
#[derive(Debug, Default)]
pub(super) struct Pace {
    usual: HashMap<&'static str, Duration>,
}

impl Pace {
    /// When to look next, counted from the start of the change, after having waited for `waited`.
    pub(super) fn next_look(&self, doing: &str, waited: Duration, first: FirstLook) -> Duration {
        if waited.is_zero() && first == AT_ONCE {
            return waited;
        }
        let Some(usual) = self.usual.get(doing).copied() else {
            return if waited < first.guess { first.guess } else { waited + (waited / 2).min(LONGEST_PAUSE) };
        };
        let next = if waited.is_zero() {
            usual.min(first.guess).max(first.never_before)
        } else if waited < usual {
            usual.min(waited * TRUST)
        } else {
            // It takes longer than usual: look often at first, then ever more rarely.
            waited + ((waited - usual) / 2).max(usual / 16).min(LONGEST_PAUSE)
        };
        next.max(waited + SHORTEST_PAUSE)
    }

    /// Learns from a change that was over at the look after `until`, and was not at the look after `from` (zero if
    /// there was none).
    pub(super) fn learn(&mut self, doing: &'static str, from: Duration, until: Duration) {
        // Over at the first look: it may have been over much earlier, so the next guess is bolder.
        // Else the end lies between, and the late side is taken: a look that comes a little late costs less than one more.
        let sample = if from.is_zero() { until * 8 / 10 } else { (from + until * 3) / 4 };
        self.usual.entry(doing).and_modify(|usual| *usual = (*usual + sample) / 2).or_insert(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_LOOK, FirstLook, Pace};
    use std::time::Duration;

    /// Runs changes of this length and gives the looks and the lag of the last one.
    fn run(pace: &mut Pace, lengths: &[u64]) -> (u32, Duration) {
        let mut last = (0, Duration::ZERO);
        for length in lengths {
            let (length, mut waited, mut looks) = (Duration::from_millis(*length), Duration::ZERO, 0);
            loop {
                let next = pace.next_look("x", waited, FIRST_LOOK);
                looks += 1;
                if next >= length {
                    pace.learn("x", waited, next);
                    last = (looks, next - length);
                    break;
                }
                waited = next;
            }
        }
        last
    }

    #[test]
    fn a_steady_change_is_soon_seen_in_time_with_few_looks() {
        for length in [30, 200, 2_000, 3_000, 20_000, 300_000] {
            let (looks, lag) = run(&mut Pace::default(), &[length; 12]);
            assert!(lag <= Duration::from_millis(length / 12 + 50), "{length} ms: {lag:?} late");
            assert!(looks <= 12, "{length} ms: {looks} looks");
        }
    }

    #[test]
    fn a_change_that_became_quick_is_noticed() {
        let mut pace = Pace::default();
        run(&mut pace, &[5_000; 10]);
        let (_, lag) = run(&mut pace, &[200; 4]);
        assert!(lag < Duration::from_millis(120), "{lag:?}");
    }

    #[test]
    fn the_first_look_comes_as_guessed_then_as_learned_and_never_before_a_change_can_be_over() {
        let ms = Duration::from_millis;
        let first = FirstLook { guess: ms(600), never_before: ms(300) };
        let mut pace = Pace::default();
        assert_eq!(pace.next_look("x", Duration::ZERO, first), ms(600));
        let mut looks = Vec::new();
        for _ in 0..12 {
            let look = pace.next_look("x", Duration::ZERO, first);
            pace.learn("x", Duration::ZERO, look);
            looks.push(look);
        }
        assert!(looks.is_sorted_by(|a, b| a >= b) && looks.last() == Some(&ms(300)), "{looks:?}");
        assert!(pace.next_look("x", ms(300), first) > ms(300));
        for _ in 0..12 {
            pace.learn("x", ms(600), ms(900));
        }
        assert_eq!(pace.next_look("x", Duration::ZERO, first), ms(600));
    }

    #[test]
    fn looks_become_rare_for_what_hangs() {
        let (looks, _) = run(&mut Pace::default(), &[3_600_000]);
        assert!(looks < 400, "{looks} looks in an hour");
    }
}
