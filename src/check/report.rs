//! Findings: what was looked at, how it is, what to do about it. One line each.

use crate::error::{Error, Kind};
use std::fmt;
use std::io::Write;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// The driver works; something is not available, or probably not meant.
    Warning,
    /// The driver will not work, for this reason.
    Error(Cause),
}

/// What has to change before it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The configuration: a restart does not help.
    Configuration,
    /// A service that is away: waiting may help.
    Service,
    /// The machine, or the cloud.
    Other,
}

impl Cause {
    /// Of a failed request or login.
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            Kind::Unavailable | Kind::Deadline | Kind::Busy => Self::Service,
            Kind::InvalidArgument | Kind::Unauthenticated | Kind::Denied | Kind::NotFound => Self::Configuration,
            _ => Self::Other,
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    level: Level,
    what: String,
    detail: String,
    remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), detail: detail.into(), remedy: None }
    }

    /// Worth a look.
    pub(super) fn warning(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Warning, what: what.into(), detail: detail.into(), remedy: None }
    }

    /// Wrong.
    pub(super) fn error(cause: Cause, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Error(cause), what: what.into(), detail: detail.into(), remedy: None }
    }

    /// What failed; its message says what to do.
    pub(super) fn failed(what: impl Into<String>, error: &Error) -> Self {
        Self::error(Cause::of(error), what, error.to_string())
    }

    /// What to do about it.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// `warning  programs for xfs  — mkfs.xfs is missing; install xfsprogs`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error(_) => "error",
        };
        write!(f, "{level:<7}  {:<28}  — {}", self.what, self.detail)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Writes findings as they come and keeps count.
pub(super) struct Report {
    out: Box<dyn Write + Send>,
    warnings: u32,
    errors: Vec<Cause>,
}

impl Report {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, warnings: 0, errors: Vec::new() }
    }

    /// Adds a finding.
    pub(super) fn add(&mut self, finding: &Finding) {
        match finding.level {
            Level::Ok => {}
            Level::Warning => self.warnings += 1,
            Level::Error(cause) => self.errors.push(cause),
        }
        self.line(&finding.to_string());
    }

    /// The last line, and the exit code.
    pub(super) fn conclude(&mut self) -> u8 {
        let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let warnings = count(usize::try_from(self.warnings).unwrap_or(usize::MAX), "warning");
        let last = match self.errors.len() {
            0 => format!("ready: {warnings}"),
            errors => format!("not ready: {}, {warnings}", count(errors, "error")),
        };
        self.line(&last);
        exit_code(&self.errors)
    }

    fn line(&mut self, line: &str) {
        // Who closes our output learns the result from the exit code.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

/// `EX_CONFIG` where the configuration is wrong, since neither waiting nor repairing helps; 1 where something is missing;
/// `EX_UNAVAILABLE` where nothing but waiting is needed.
fn exit_code(errors: &[Cause]) -> u8 {
    if errors.contains(&Cause::Configuration) {
        78
    } else if errors.contains(&Cause::Other) {
        1
    } else if errors.contains(&Cause::Service) {
        69
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Finding, Report, exit_code};

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::error(Cause::Other, "program blkid", "not found").remedy("install util-linux");
        assert_eq!(finding.to_string(), "error    program blkid                 — not found; install util-linux");
        assert!(Finding::ok("login", "done").to_string().starts_with("ok       login"));
    }

    #[test]
    fn the_exit_code_says_what_helps() {
        use Cause::{Configuration, Other, Service};
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[Service]), 69);
        assert_eq!(exit_code(&[Service, Other]), 1);
        assert_eq!(exit_code(&[Service, Other, Configuration]), 78);
    }

    #[test]
    fn warnings_do_not_fail() {
        let mut report = Report::new(Box::new(std::io::sink()));
        report.add(&Finding::warning("a", "b"));
        assert_eq!(report.conclude(), 0);
        report.add(&Finding::error(Cause::Service, "a", "b"));
        assert_eq!(report.conclude(), 69);
    }
}
