//! What came of the cases.

use super::bench::Case;
use std::collections::BTreeMap;

/// What came of one case.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) case: Case,
    pub(super) attempts: u32,
    /// How many of the faults struck.
    pub(super) struck: usize,
    /// Why it never came to an end, the RPC itself or undoing it.
    pub(super) stuck: Option<String>,
    /// What was not as the RPC had promised.
    pub(super) wrong: Option<String>,
    /// What was left over.
    pub(super) leaks: Vec<String>,
    /// The driver's log, of a bad case.
    pub(super) log: String,
}

impl Verdict {
    pub(super) fn new(case: Case) -> Self {
        Self { case, attempts: 0, struck: 0, stuck: None, wrong: None, leaks: Vec::new(), log: String::new() }
    }

    pub(super) fn is_bad(&self) -> bool {
        self.stuck.is_some() || self.wrong.is_some() || !self.leaks.is_empty()
    }

    /// One line, and the end of the driver's log.
    pub(super) fn tell(&self) -> String {
        let log: Vec<&str> = self.log.lines().collect();
        format!(
            "{:?}, {:?} ({}), {} attempts: stuck {:?}, wrong {:?}, left {:?}\n  {}",
            self.case.flow,
            self.case.faults,
            self.case.call,
            self.attempts,
            self.stuck,
            self.wrong,
            self.leaks,
            log[log.len().saturating_sub(12)..].join("\n  ")
        )
    }
}

/// A line of the table.
#[derive(Default)]
struct Row {
    tried: usize,
    leaks: usize,
    stuck: usize,
    wrong: usize,
    missed: usize,
}

/// Prints the table.
pub(super) fn print(verdicts: &[Verdict]) {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for verdict in verdicts {
        let mut keys = vec![format!("flow  {:?}", verdict.case.flow), "total".to_owned()];
        if let [(fault, _)] = verdict.case.faults.as_slice() {
            keys.push(format!("fault {fault:?}"));
        }
        for key in keys {
            let row = rows.entry(key).or_default();
            row.tried += usize::from(verdict.struck > 0);
            row.missed += usize::from(verdict.struck == 0);
            row.leaks += usize::from(!verdict.leaks.is_empty());
            row.stuck += usize::from(verdict.stuck.is_some());
            row.wrong += usize::from(verdict.wrong.is_some());
        }
    }
    println!("{:<28} {:>6} {:>6} {:>6} {:>6} {:>11}", "", "tried", "leaks", "stuck", "wrong", "not reached");
    for (key, row) in rows {
        println!("{key:<28} {:>6} {:>6} {:>6} {:>6} {:>11}", row.tried, row.leaks, row.stuck, row.wrong, row.missed);
    }
}
