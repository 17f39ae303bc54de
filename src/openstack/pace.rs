//! When to look: how long changes usually take, learned per kind of change.

use std::collections::HashMap;
use std::time::Duration;

/// The first look at a change of which nothing is known yet. It is never later than this after the start, whatever was
/// learned: what took long under load may be quick now.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(250);

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
    /// When to look next, counted from the start of the change, after having waited for `waited`. `never_before` is the
    /// time before which such a change is never over, if that is known.
    pub(super) fn next_look(&self, doing: &str, waited: Duration, never_before: Option<Duration>) -> Duration {
        let first = never_before.unwrap_or(FIRST_LOOK);
        let Some(usual) = self.usual.get(doing).copied() else {
            return if waited < first { first } else { waited + (waited / 2).min(LONGEST_PAUSE) };
        };
        let next = if waited.is_zero() {
            never_before.unwrap_or(usual.min(FIRST_LOOK))
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
    use super::Pace;
    use std::time::Duration;

    /// Runs changes of this length and gives the looks and the lag of the last one.
    fn run(pace: &mut Pace, lengths: &[u64]) -> (u32, Duration) {
        let mut last = (0, Duration::ZERO);
        for length in lengths {
            let (length, mut waited, mut looks) = (Duration::from_millis(*length), Duration::ZERO, 0);
            loop {
                let next = pace.next_look("x", waited, None);
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
    fn nobody_looks_before_a_change_can_be_over() {
        let never_before = Some(Duration::from_millis(600));
        let mut pace = Pace::default();
        assert_eq!(pace.next_look("x", Duration::ZERO, never_before), Duration::from_millis(600));
        for _ in 0..5 {
            pace.learn("x", Duration::ZERO, Duration::from_millis(600));
        }
        assert_eq!(pace.next_look("x", Duration::ZERO, never_before), Duration::from_millis(600));
        assert!(pace.next_look("x", Duration::from_millis(600), never_before) > Duration::from_millis(600));
    }

    #[test]
    fn looks_become_rare_for_what_hangs() {
        let (looks, _) = run(&mut Pace::default(), &[3_600_000]);
        assert!(looks < 400, "{looks} looks in an hour");
    }
}
