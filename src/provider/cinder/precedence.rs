//! Attachments go before deletions.
//!
//! A pod waits for every attachment, and for most detachments too: its volume is wanted on another node. Nobody waits for
//! a deletion. But where many pods go at once, each volume is deleted as soon as it is free, and the deletions keep the
//! same services busy that the others' detachments need. So a deletion makes way for a crowd of attachments: for a bounded
//! time, not for those that hang, and never for a few, so that no volume hinders another. This is about speed alone;
//! another replica's attachments are not known here.

use crate::call::Call;
use crate::error::Result;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// So many attachments at once are made way for.
const CROWD: usize = 4;

/// How long a deletion makes way at most.
const LONGEST: Duration = Duration::from_secs(15);

/// A deletion that has little time makes way for this part of it.
const PART: u32 = 4;

/// An attachment that takes longer hangs, or waits for something that no deletion hinders.
const HANGING: Duration = Duration::from_secs(10);

/// The attachments of one cloud that are being made or ended.
#[derive(Debug)]
pub(super) struct Precedence {
    under_way: watch::Sender<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    next_key: u64,
    since: BTreeMap<u64, Instant>,
}

/// One attachment that is being made or ended, until this is dropped.
#[derive(Debug)]
pub(super) struct Attaching<'a> {
    precedence: &'a Precedence,
    key: u64,
}

impl Default for Precedence {
    fn default() -> Self {
        Self { under_way: watch::Sender::new(UnderWay::default()) }
    }
}

impl Precedence {
    /// An attachment begins to be made or ended.
    pub(super) fn take(&self) -> Attaching<'_> {
        let mut key = 0;
        self.under_way.send_modify(|under_way| {
            key = under_way.next_key;
            under_way.next_key += 1;
            under_way.since.insert(key, Instant::now());
        });
        Attaching { precedence: self, key }
    }

    /// Waits until few attachments are being made or ended, or for long enough.
    ///
    /// # Errors
    /// `Deadline`: the caller is gone.
    pub(super) async fn give(&self, call: &Call) -> Result<()> {
        let most = LONGEST.min(call.remaining() / PART);
        let quiet = tokio::time::timeout(most, self.quiet());
        // Whether it is quiet or was long enough: the deletion begins.
        call.bound("make way for attachments", quiet).await.map(drop)
    }

    async fn quiet(&self) {
        let mut changes = self.under_way.subscribe();
        loop {
            // Keys grow with time: this one and those after it are a crowd, until it hangs.
            let oldest = changes.borrow_and_update().since.values().rev().nth(CROWD - 1).copied();
            let Some(hangs) = oldest.map(|since| since + HANGING).filter(|hangs| *hangs > Instant::now()) else {
                return;
            };
            // The sender lives as long as this borrow of it: only a change or the time ends the wait.
            let _ = tokio::time::timeout_at(hangs, changes.changed()).await;
        }
    }
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        self.precedence.under_way.send_modify(|under_way| {
            under_way.since.remove(&self.key);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Attaching, CROWD, HANGING, LONGEST, Precedence};
    use crate::call::Call;
    use crate::error::Kind;
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    const SECOND: Duration = Duration::from_secs(1);

    async fn waited(precedence: &Precedence, call: &Call) -> Duration {
        let begun = Instant::now();
        precedence.give(call).await.unwrap();
        begun.elapsed()
    }

    fn several(precedence: &Precedence, number: usize) -> Vec<Attaching<'_>> {
        (0..number).map(|_| precedence.take()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_waits_for_a_crowd_and_not_for_a_few() {
        let precedence = Precedence::default();
        let call = Call::lasting(60 * SECOND);
        assert_eq!(waited(&precedence, &call).await, Duration::ZERO, "nothing is under way");
        let few = several(&precedence, CROWD - 1);
        assert_eq!(waited(&precedence, &call).await, Duration::ZERO, "a few");
        let mut more = several(&precedence, 2);
        let (time, ()) = tokio::join!(waited(&precedence, &call), async {
            sleep(SECOND).await;
            more.pop();
            sleep(SECOND).await;
            drop(few);
        });
        assert_eq!(time, 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_neither_for_those_that_hang_nor_for_ever_nor_past_its_own_time() {
        let precedence = Precedence::default();
        let call = Call::lasting(600 * SECOND);
        let _hanging = several(&precedence, CROWD);
        assert_eq!(waited(&precedence, &Call::lasting(4 * SECOND)).await, SECOND);
        assert_eq!(waited(&precedence, &call).await, HANGING - SECOND);
        assert_eq!(waited(&precedence, &call).await, Duration::ZERO, "they hang still");
        let few = several(&precedence, CROWD - 1);
        assert_eq!(waited(&precedence, &call).await, Duration::ZERO, "these are few, and the others hang still");
        let mut crowds = few;
        let without_end = async {
            loop {
                crowds = several(&precedence, CROWD);
                sleep(SECOND).await;
            }
        };
        tokio::select! {
            biased;
            () = without_end => {}
            time = waited(&precedence, &call) => assert_eq!(time, LONGEST),
        }
        let _crowd = several(&precedence, CROWD);
        let (given, ()) = tokio::join!(precedence.give(&call), async {
            sleep(SECOND).await;
            call.gone().cancel();
        });
        assert_eq!(given.unwrap_err().kind(), Kind::Deadline);
    }
}
