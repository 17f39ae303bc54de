//! What refusals and lost answers of OpenStack mean to every provider.

use crate::error::{Error, Kind};
use crate::openstack::client::Refusal;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request whose answer was lost may still be on its way.
const DOUBT: Duration = Duration::from_secs(5);

/// What OpenStack said, if it was OpenStack that refused.
pub(crate) fn refusal(error: &Error) -> Option<&Refusal> {
    error.cause()
}

/// Whether OpenStack refused with this status.
pub(crate) fn is_refused_with(error: &Error, status: u16) -> bool {
    refusal(error).is_some_and(|refusal| refusal.status == status)
}

/// Whether the words of a refusal contain one of these.
pub(crate) fn says(error: &Error, words: &[&str]) -> bool {
    refusal(error).is_some_and(|refusal| {
        let message = refusal.message.to_lowercase();
        words.iter().any(|word| message.contains(word))
    })
}

/// Whether a request may still be carried out later: there was no answer, or only that of a proxy that gave up waiting.
/// (Whatever the service itself answers, what it has done by then is there to be found.)
pub(crate) fn is_unclear(error: &Error) -> bool {
    match refusal(error) {
        Some(refusal) => matches!(refusal.status, 502 | 504),
        None => matches!(error.kind(), Kind::Unavailable | Kind::Internal | Kind::Deadline),
    }
}

/// A failure whose remains could not be removed either. Told the failure itself, an orchestrator may take that for the end
/// and never ask again; so it is told to repeat, and whoever does removes what is left.
pub(crate) fn with_remains(failed: Error, later: &Error) -> Error {
    Error::busy(format!(
        "it failed, and what is left of it could not be removed yet ({later}); repeat to have that done"
    ))
    .because(failed)
}

/// Names for which a creation was sent and its answer lost: the object may still appear.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    sent: Mutex<HashMap<String, Instant>>,
}

impl Doubts {
    /// Notes that the answer to a creation under this name was lost just now.
    pub(crate) fn note(&self, name: &str) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|_, when| when.elapsed() < DOUBT);
        sent.insert(name.to_owned(), Instant::now());
    }

    /// How long a lost creation under this name may still be on its way; nothing if there is none. Asked once.
    pub(crate) fn take(&self, name: &str) -> Option<Duration> {
        let when = self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(name)?;
        DOUBT.checked_sub(when.elapsed())
    }
}

/// A refusal as the client would report it, for tests.
#[cfg(test)]
pub(crate) fn refused(status: u16, message: &str) -> Error {
    let refusal = Refusal { status, message: message.to_owned(), request_id: None };
    Error::new(refusal.kind(), "refused").because(refusal)
}

#[cfg(test)]
mod tests {
    use super::{Doubts, is_unclear, refused, with_remains};
    use crate::error::{Error, Kind};
    use std::time::Duration;

    #[test]
    fn only_lost_answers_are_unclear() {
        assert!(is_unclear(&Error::new(Kind::Unavailable, "connection reset")));
        assert!(is_unclear(&refused(504, "gateway")));
        assert!(!is_unclear(&refused(429, "slow down")));
        assert!(!is_unclear(&refused(503, "away")));
        assert!(!is_unclear(&refused(400, "no")));
        assert!(!is_unclear(&Error::new(Kind::Unauthenticated, "no")));
    }

    #[test]
    fn a_failure_with_remains_is_repeated_and_tells_both() {
        let error = with_remains(Error::new(Kind::Exhausted, "no room for v"), &refused(403, "you may not"));
        assert_eq!(error.kind(), Kind::Busy);
        let text = error.to_string();
        assert!(text.contains("no room for v") && text.contains("you may not"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn doubts_pass() {
        let doubts = Doubts::default();
        assert_eq!(doubts.take("a"), None);
        doubts.note("a");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(doubts.take("a"), Some(Duration::from_secs(3)));
        assert_eq!(doubts.take("a"), None);
        doubts.note("b");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(doubts.take("b"), None);
    }
}
