//! What the user sees: a line per step, or a bar where many volumes meet a terminal; then the summary.

use super::client::seconds;
use super::step::Step;
use super::table::{Sample, Table};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All steps done, nothing left.
    Passed,
    /// A step failed, or something is left.
    Failed,
    /// A signal came first.
    Stopped,
}

/// Writes to the user, and keeps the figures for the summary. Shared by all lives.
pub(super) struct Report {
    out: Mutex<Box<dyn Write + Send>>,
    bar: Option<ProgressBar>,
    /// Whether lines say which volume they are about.
    numbered: bool,
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    table: Table,
    passed: u32,
    failed: u32,
    stopped: u32,
    left_out: BTreeSet<&'static str>,
}

impl Report {
    /// Reports about so many volumes; with a bar instead of the steps' lines where `terminal` says that somebody watches.
    pub(super) fn new(out: Box<dyn Write + Send>, volumes: u32, terminal: bool) -> Self {
        let bar = (terminal && volumes > 1).then(|| {
            let bar = ProgressBar::new(u64::from(volumes));
            // The template is a constant; the test below holds that it is a good one.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { out: Mutex::new(out), bar, numbered: volumes > 1, figures: Mutex::default() }
    }

    /// A line for the user.
    pub(super) fn line(&self, line: impl AsRef<str>) {
        let write = || {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            // A reader that is gone must not keep us from undoing: the exit code still tells.
            let _ = writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush());
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// What is not tried, and why; said once.
    pub(super) fn left_out(&self, what: &'static str, why: &str) {
        if self.figures().left_out.insert(what) {
            self.line(format!("left out: {what}: {why}"));
        }
    }

    /// A step that succeeded.
    pub(super) fn done(&self, life: u32, step: Step, object: &str, sample: Sample) {
        self.figures().table.add(step, sample);
        let mut line = format!("{}{:<22}  {object:<44}  {:>9}", self.prefix(life), step.name(), seconds(sample.took));
        if let Some(calls) = sample.calls {
            line.push_str(&format!("  {calls} OpenStack call{}", if calls == 1 { "" } else { "s" }));
        }
        if sample.attempts > 1 {
            line.push_str(&format!("  {} attempts", sample.attempts));
        }
        match &self.bar {
            Some(bar) => bar.set_message(format!("volume {life}: {}", step.name())),
            None => self.line(line),
        }
    }

    /// A figure for the summary only.
    pub(super) fn measured(&self, step: Step, took: Duration) {
        self.figures().table.add(step, Sample { took, attempts: 0, calls: None });
    }

    /// A step that failed.
    pub(super) fn failed(&self, life: u32, step: Step, object: &str, took: Duration, attempts: u32, why: &str) {
        let attempts = if attempts > 1 { format!(" and {attempts} attempts") } else { String::new() };
        self.line(format!(
            "{}{:<22}  {object}  FAILED after {}{attempts}: {why}",
            self.prefix(life),
            step.name(),
            seconds(took)
        ));
    }

    /// Something that went on about one volume.
    pub(super) fn note(&self, life: u32, note: &str) {
        self.line(format!("{}{note}", self.prefix(life)));
    }

    /// The end of a life.
    pub(super) fn ended(&self, life: u32, ending: Ending, took: Duration) {
        let word = {
            let mut figures = self.figures();
            match ending {
                Ending::Passed => {
                    figures.passed += 1;
                    "passed"
                }
                Ending::Failed => {
                    figures.failed += 1;
                    "FAILED"
                }
                Ending::Stopped => {
                    figures.stopped += 1;
                    "stopped"
                }
            }
        };
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        if self.numbered {
            self.line(format!("{}{word} after {}", self.prefix(life), seconds(took)));
        }
    }

    /// The summary and the last line. `planned` lives should have been; `left` is what could not be taken away.
    pub(super) fn conclude(&self, planned: u32, calls: Option<u64>, left: &[String]) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (table, last) = {
            let figures = self.figures();
            let ended = figures.passed + figures.failed;
            let mut last = format!("{} passed, {} failed", figures.passed, figures.failed);
            if planned > ended {
                last.push_str(&format!(", {} not finished", planned - ended));
            }
            (figures.table.lines(), last)
        };
        if !table.is_empty() {
            self.line("");
        }
        table.iter().for_each(|line| self.line(line));
        self.line("");
        if let Some(calls) = calls {
            self.line(format!("{calls} OpenStack calls in all"));
        }
        self.left_behind(left);
        self.line(last);
    }

    /// What this run made and could not take away.
    pub(super) fn left_behind(&self, left: &[String]) {
        for object in left {
            self.line(format!("left behind: {object}"));
        }
    }

    /// Whether every one of `planned` lives passed.
    pub(super) fn all_passed(&self, planned: u32) -> bool {
        self.figures().passed == planned
    }

    fn prefix(&self, life: u32) -> String {
        if self.numbered { format!("[{life:>3}] ") } else { String::new() }
    }

    fn figures(&self) -> std::sync::MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TEMPLATE: &str = "{bar:30} {pos}/{len} volumes  {elapsed_precise}  {msg}";

#[cfg(test)]
mod tests {
    #[test]
    fn the_bars_template_is_sound() {
        indicatif::ProgressStyle::with_template(super::TEMPLATE).unwrap();
    }
}
