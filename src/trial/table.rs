//! The summary: each step's times over all lives.

use super::client::seconds;
use super::step::Step;
use std::collections::BTreeMap;
use std::time::Duration;

/// One step of one life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// How long it took, repetitions included.
    pub(super) took: Duration,
    /// How often its RPC was sent; zero where there was none.
    pub(super) attempts: u32,
    /// How many requests to OpenStack there were meanwhile, where that is known.
    pub(super) calls: Option<u64>,
}

/// All steps that succeeded.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<Step, Vec<Sample>>);

impl Table {
    /// Takes in a step.
    pub(super) fn add(&mut self, step: Step, sample: Sample) {
        self.0.entry(step).or_default().push(sample);
    }

    /// One line per step, under a heading; nothing where there was no step.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.0.is_empty() {
            lines.push(line(
                ["step", "times", "median", "p90", "max", "attempts", "OpenStack calls"].map(str::to_owned),
            ));
        }
        for (step, samples) in &self.0 {
            let mut times: Vec<_> = samples.iter().map(|sample| sample.took).collect();
            times.sort_unstable();
            let attempts: u32 = samples.iter().map(|sample| sample.attempts).sum();
            let calls: Option<u64> = samples.iter().map(|sample| sample.calls).sum();
            lines.push(line([
                step.name().to_owned(),
                samples.len().to_string(),
                seconds(percentile(&times, 50)),
                seconds(percentile(&times, 90)),
                seconds(percentile(&times, 100)),
                if attempts == 0 { "-".to_owned() } else { attempts.to_string() },
                calls.map_or_else(|| "-".to_owned(), |calls| calls.to_string()),
            ]));
        }
        lines
    }
}

fn line([step, times, median, p90, max, attempts, calls]: [String; 7]) -> String {
    format!("{step:<22}  {times:>5}  {median:>9}  {p90:>9}  {max:>9}  {attempts:>8}  {calls:>15}")
}

/// The nearest rank: the smallest time that so many per cent of the (sorted) times do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Sample, Table, percentile};
    use crate::trial::step::Step;
    use proptest::prelude::{prop, proptest};
    use std::time::Duration;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<_> = (1..=20).map(Duration::from_secs).collect();
        let of = |percent| percentile(&times, percent).as_secs();
        assert_eq!((of(50), of(90), of(100)), (10, 18, 20));
        assert_eq!(percentile(&times[..1], 50), times[0]);
        assert_eq!(percentile(&[], 90), Duration::ZERO);
    }

    #[test]
    fn a_row_has_times_attempts_and_calls() {
        let mut table = Table::default();
        for (took, attempts) in [(3, 1), (1, 2), (2, 1)] {
            let sample = Sample { took: Duration::from_secs(took), attempts, calls: Some(4) };
            table.add(Step::CreateVolume, sample);
        }
        table.add(Step::Write, Sample { took: Duration::ZERO, attempts: 0, calls: None });
        let lines = table.lines();
        assert_eq!(lines.len(), 3);
        let row: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(row, ["create", "volume", "3", "2.00", "s", "3.00", "s", "3.00", "s", "4", "12"]);
        assert!(lines[2].ends_with('-') && lines[2].starts_with("write data"));
        assert!(Table::default().lines().is_empty());
    }

    proptest! {
        #[test]
        fn percentiles_grow_and_are_among_the_times(mut times in prop::collection::vec(0_u64..10_000, 1..50)) {
            times.sort_unstable();
            let times: Vec<_> = times.into_iter().map(Duration::from_millis).collect();
            let mut last = Duration::ZERO;
            for percent in 1..=100 {
                let value = percentile(&times, percent);
                assert!(times.contains(&value) && value >= last);
                last = value;
            }
            assert_eq!(Some(&last), times.last());
        }
    }
}
