//! Looking at many objects at once: how long a part of a list should be, and asking for each where no list helps.

use super::watch::Source;
use crate::call::Call;
use crate::error::{Error, Result};
use std::sync::Arc;
use tokio::task::JoinSet;

/// The most entries that the services give in one answer, unless the operator chose another number.
pub const LARGEST_PAGE: u32 = 1000;

/// How many objects one look shows for so many that are waited for: the latest are theirs, and those that others made
/// meanwhile.
pub(super) fn page_for(waited_for: usize) -> u32 {
    u32::try_from(waited_for).unwrap_or(u32::MAX).saturating_mul(2).clamp(50, LARGEST_PAGE)
}

/// Asks for each of these objects, all at the same time.
pub(super) async fn each<S: Source + Clone>(
    source: &S,
    call: &Call,
    ids: impl IntoIterator<Item = String>,
) -> Result<Vec<(String, Option<S::Object>)>> {
    let source = Arc::new(source.clone());
    let mut asking = JoinSet::new();
    for id in ids {
        let (source, call) = (Arc::clone(&source), call.clone());
        asking.spawn(async move {
            let object = source.one(&call, &id).await;
            (id, object)
        });
    }
    let mut seen = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let (id, object) = answer.map_err(|error| Error::internal("ask for an object").because(error))?;
        seen.push((id, object?));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::page_for;

    #[test]
    fn pages_grow_with_the_number_of_waiters_within_bounds() {
        assert_eq!([1, 25, 26, 400, 5000, usize::MAX].map(page_for), [50, 50, 52, 800, 1000, 1000]);
    }
}
