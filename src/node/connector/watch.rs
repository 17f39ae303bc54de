//! Looking until something is there. The kernel tells of most changes by events, but sysfs is the truth and looking is
//! cheap.

use crate::call::Call;
use crate::error::Result;
use crate::node::blocking;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause between two looks; each is a half longer than the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Looks until there is something, for at most this time; none if it is over, or the call nearly is: an answer that says
/// what is missing helps more than no answer.
///
/// # Errors
/// What looking fails with.
pub(super) async fn until<T: Send + 'static>(
    call: &Call,
    doing: &str,
    time: Duration,
    look: impl Fn() -> Result<Option<T>> + Clone + Send + 'static,
) -> Result<Option<T>> {
    let end = Instant::now() + time;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = blocking::run(call, doing, look.clone()).await? {
            return Ok(Some(found));
        }
        if Instant::now() >= end || call.remaining() < pause.saturating_mul(2) {
            return Ok(None);
        }
        call.sleep(doing, pause).await?;
        pause = pause.saturating_mul(3).checked_div(2).unwrap_or(pause).min(LONGEST_PAUSE);
    }
}
