//! One RPC as the layers below see it: how long it may take, whether anybody still waits for the answer, and what it
//! cost.
//!
//! Every wait goes through [`Call::bound`] or [`Call::sleep`], so it ends at the RPC's deadline and when the caller is
//! gone. What changes something in OpenStack or on the node is *not* cut off half-way: such work runs in a task of
//! its own (`csi::operation`) that finishes the step at hand and then sees that the call is over.

use crate::error::{Error, Kind, Result};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The target of the log lines that say which step begins: those that change something on this machine. Shown with
/// `--log-level info,fuxi_csi::steps=debug`.
pub const STEPS: &str = "fuxi_csi::steps";

/// The time that an RPC without a deadline gets.
pub const DEFAULT_TIME: Duration = Duration::from_secs(180);

/// How many OpenStack request ids are kept for the log line of a call.
const KEPT_REQUEST_IDS: usize = 16;

/// One RPC: its deadline, its caller, its cost. Cheap to clone; clones are the same call.
#[derive(Debug, Clone)]
pub struct Call {
    deadline: Instant,
    gone: CancellationToken,
    cost: Arc<Cost>,
}

/// What a call cost so far, for its log line.
#[derive(Debug, Default)]
pub struct Cost {
    openstack_calls: AtomicU32,
    request_ids: Mutex<Vec<String>>,
}

impl Call {
    /// A call that may take this long from now.
    #[must_use]
    pub fn lasting(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, gone: CancellationToken::new(), cost: Arc::default() }
    }

    /// When the caller stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How much time is left; zero when it is over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.gone.is_cancelled() { Duration::ZERO } else { self.deadline.saturating_duration_since(Instant::now()) }
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// The token that says that the caller is gone; cancel it (or keep a drop guard of it) where the RPC ends.
    #[must_use]
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Fails with [`Kind::Deadline`] if the call is over: ask before each step that changes something.
    ///
    /// # Errors
    /// [`Kind::Deadline`].
    pub fn check(&self, doing: &str) -> Result<()> {
        if self.is_over() { Err(self.over(doing)) } else { Ok(()) }
    }

    /// Tells the log that a step begins which changes something on this machine. Whoever dies in it leaves what the next
    /// call has to take up, so no step goes without.
    pub fn step(&self, doing: &str) {
        tracing::debug!(target: STEPS, "{doing}");
    }

    /// Waits for a future, at most until the call is over. `doing` says what was waited for.
    ///
    /// # Errors
    /// [`Kind::Deadline`] when the call is over first.
    pub async fn bound<T>(&self, doing: &str, future: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            value = future => Ok(value),
            () = self.gone.cancelled() => Err(self.over(doing)),
            () = tokio::time::sleep_until(self.deadline) => Err(self.over(doing)),
        }
    }

    /// Sleeps, at most until the call is over.
    ///
    /// # Errors
    /// [`Kind::Deadline`] when the call is over first.
    pub async fn sleep(&self, doing: &str, time: Duration) -> Result<()> {
        self.bound(doing, tokio::time::sleep(time)).await
    }

    /// Notes one request to OpenStack and the id it got.
    pub fn note_request(&self, request_id: Option<&str>) {
        self.cost.openstack_calls.fetch_add(1, Ordering::Relaxed);
        if let Some(id) = request_id {
            let mut ids = self.cost.request_ids.lock().unwrap_or_else(PoisonError::into_inner);
            if ids.len() < KEPT_REQUEST_IDS {
                ids.push(id.to_owned());
            }
        }
    }

    /// How many requests to OpenStack this call made.
    #[must_use]
    pub fn openstack_calls(&self) -> u32 {
        self.cost.openstack_calls.load(Ordering::Relaxed)
    }

    /// The first request ids that OpenStack gave, oldest first.
    #[must_use]
    pub fn request_ids(&self) -> Vec<String> {
        self.cost.request_ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn over(&self, doing: &str) -> Error {
        let why = if self.gone.is_cancelled() { "the caller is gone" } else { "the deadline has passed" };
        Error::new(Kind::Deadline, format!("{doing}: {why}; repeat the call to go on"))
    }
}

#[cfg(test)]
mod tests {
    use super::Call;
    use crate::error::Kind;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_the_deadline() {
        let call = Call::lasting(Duration::from_secs(3));
        let error = call.bound("wait for nothing", std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
        assert!(call.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_caller_is_gone() {
        let call = Call::lasting(Duration::from_secs(3600));
        call.gone().cancel();
        assert_eq!(call.sleep("rest", Duration::from_secs(60)).await.unwrap_err().kind(), Kind::Deadline);
        assert!(call.check("go on").is_err());
    }
}
