//! Faults: which request they strike, and what happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;

/// What happens to a request instead of, before or after being served.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// The connection is reset; the request is not served.
    Reset,
    /// The request is served, and the connection is cut without an answer.
    LoseAnswer,
    /// The driver is killed with SIGKILL; the request is not served.
    KillBefore,
    /// The request is served, and then the driver is killed.
    KillAfter,
    /// This status is answered; the request is not served.
    Status { status: u16, retry_after: Option<u32> },
    /// The request is served, and an error is answered nevertheless, as a gateway does that lost its patience.
    StatusAfter { status: u16 },
    /// The request is served when the gate opens, whether or not anybody waits for the answer by then.
    Hold(Gate),
    /// The request's token is revoked, so that this request and all others with it get a 401.
    RevokeToken,
}

impl Action {
    pub(crate) fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None }
    }
}

/// What a held request waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(CancellationToken);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.cancel();
    }

    pub(crate) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// Which requests are struck, and by what.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pattern: String,
    object: Option<String>,
    skip: u32,
    times: u32,
    action: Action,
    hits: Strikes,
}

/// How often a rule struck.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strikes(Arc<AtomicU32>);

impl Strikes {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Rule {
    /// Strikes the first request that matches. The pattern is compared with the request's line in the log, such as
    /// `POST cinder /volumes` or `POST cinder /volumes/{}/action os-extend`; `*` stands for anything.
    pub(crate) fn on(pattern: &str, action: Action) -> Self {
        Self { pattern: pattern.to_owned(), object: None, skip: 0, times: 1, action, hits: Strikes::default() }
    }

    /// Strikes the nth (from 1) request that matches instead of the first.
    pub(crate) fn nth(mut self, nth: u32) -> Self {
        self.skip = nth - 1;
        self
    }

    /// Strikes so many times in a row.
    pub(crate) fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Strikes until the faults are cleared.
    pub(crate) fn always(self) -> Self {
        self.times(u32::MAX)
    }

    /// Strikes only requests that name this object in their path or body.
    pub(crate) fn of(mut self, object: &str) -> Self {
        self.object = Some(object.to_owned());
        self
    }
}

/// All rules in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) -> Strikes {
        let hits = rule.hits.clone();
        self.rules.push(rule);
        hits
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// What happens to this request: the first rule that strikes decides.
    pub(crate) fn strike(&mut self, line: &str, whole: &str) -> Option<Action> {
        for rule in &mut self.rules {
            let about = rule.object.as_ref().is_none_or(|object| whole.contains(object.as_str()));
            if rule.times == 0 || !about || !matches(&rule.pattern, line) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times = rule.times.saturating_sub(1);
            rule.hits.0.fetch_add(1, Ordering::SeqCst);
            return Some(rule.action.clone());
        }
        None
    }
}

/// Whether the pattern, in which `*` stands for anything, matches the whole text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn patterns_match_whole_lines() {
    for (pattern, text, expected) in [
        ("POST cinder /volumes", "POST cinder /volumes", true),
        ("POST cinder /volumes", "POST cinder /volumes/{}/action os-extend", false),
        ("POST cinder /volumes*", "POST cinder /volumes/{}/action os-extend", true),
        ("* nova *", "DELETE nova /servers/{}/os-volume_attachments/{}", true),
        ("*", "anything", true),
        ("*os-extend", "POST cinder /volumes/{}/action os-extend", true),
        ("*/volumes", "GET cinder /volumes/detail", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
    }
}
