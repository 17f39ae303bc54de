//! Attachments that were seen finished a moment ago.
//!
//! csi-attacher asks for most attachments twice: its second look comes before it sees what it has written itself. A request
//! to attach once more would be refused, and two questions would have to find out why; for what is remembered here the
//! question comes first, and one is enough. Nothing is answered from memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an orchestrator may take to see its own first answer.
const LATELY: Duration = Duration::from_secs(10);

/// Volumes and servers.
#[derive(Debug, Default)]
pub(super) struct AttachedLately {
    seen: Mutex<HashMap<(String, String), Instant>>,
}

impl AttachedLately {
    /// The server was just seen to have the volume.
    pub(super) fn note(&self, volume: &str, server: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, when| when.elapsed() < LATELY);
        seen.insert((volume.to_owned(), server.to_owned()), Instant::now());
    }

    /// Whether it was seen to have it lately.
    pub(super) fn has(&self, volume: &str, server: &str) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(volume.to_owned(), server.to_owned())).is_some_and(|when| when.elapsed() < LATELY)
    }

    /// The volume is being taken from the server.
    pub(super) fn forget(&self, volume: &str, server: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(&(volume.to_owned(), server.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::{AttachedLately, LATELY};

    #[tokio::test(start_paused = true)]
    async fn an_attachment_is_remembered_for_a_while_and_until_it_ends() {
        let lately = AttachedLately::default();
        lately.note("v", "s");
        assert!(lately.has("v", "s") && !lately.has("v", "t") && !lately.has("w", "s"));
        lately.forget("v", "s");
        assert!(!lately.has("v", "s"));
        lately.note("v", "s");
        tokio::time::advance(LATELY).await;
        assert!(!lately.has("v", "s"));
        lately.note("w", "s");
        assert_eq!(lately.seen.lock().unwrap().len(), 1, "what is old is dropped");
    }
}
