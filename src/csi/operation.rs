//! One operation at a time per object.
//!
//! The work of an RPC runs in a task of its own that holds a claim on its objects until it really ends. A second RPC
//! for an object that is claimed gets `ABORTED` at once. When the caller goes away (or its deadline passes), the RPC
//! ends and the [`Call`] is marked as over; the task is *not* cut off: a request that changes something in OpenStack is
//! seen through, its outcome known, and the task ends at its next wait. Only then is the claim released.
//!
//! Claims save work and spare the cloud; correctness does not rest on them, since another replica of the controller
//! has claims of its own.

use crate::call::Call;
use crate::csi::rpc::Rpc;
use crate::error::{Error, Kind, Result};
use crate::model::{NodeId, SnapshotId, VolumeId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An object that an operation works on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Object {
    VolumeName(String),
    SnapshotName(String),
    Volume(VolumeId),
    Snapshot(SnapshotId),
    Attachment(VolumeId, NodeId),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VolumeName(name) => write!(f, "the volume named {name:?}"),
            Self::SnapshotName(name) => write!(f, "the snapshot named {name:?}"),
            Self::Volume(id) => write!(f, "volume {id}"),
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Attachment(volume, node) => write!(f, "volume {volume} on node {node}"),
        }
    }
}

/// What an operation needs for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    exclusive: Option<Object>,
    shared: Option<Object>,
}

impl Claim {
    /// Nothing: the operation only looks.
    #[must_use]
    pub fn none() -> Self {
        Self { exclusive: None, shared: None }
    }

    /// The volume of this name, which may not exist yet.
    #[must_use]
    pub fn volume_name(name: &str) -> Self {
        Self { exclusive: Some(Object::VolumeName(name.to_owned())), shared: None }
    }

    /// The snapshot of this name, which may not exist yet.
    #[must_use]
    pub fn snapshot_name(name: &str) -> Self {
        Self { exclusive: Some(Object::SnapshotName(name.to_owned())), shared: None }
    }

    /// This volume, with all its attachments.
    #[must_use]
    pub fn volume(id: &VolumeId) -> Self {
        Self { exclusive: Some(Object::Volume(id.clone())), shared: None }
    }

    /// This snapshot.
    #[must_use]
    pub fn snapshot(id: &SnapshotId) -> Self {
        Self { exclusive: Some(Object::Snapshot(id.clone())), shared: None }
    }

    /// This volume on this node: other nodes' attachments of the same volume may change meanwhile.
    #[must_use]
    pub fn attachment(volume: &VolumeId, node: &NodeId) -> Self {
        Self {
            exclusive: Some(Object::Attachment(volume.clone(), node.clone())),
            shared: Some(Object::Volume(volume.clone())),
        }
    }
}

/// By whom an object is claimed.
#[derive(Debug)]
enum Holder {
    One { doing: &'static str, since: Instant },
    Several { doing: &'static str, since: Instant, count: usize },
}

#[derive(Debug, Default)]
struct Claims(Mutex<HashMap<Object, Holder>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<Object, Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of a claim or nothing of it.
    fn take(self: &Arc<Self>, claim: Claim, doing: &'static str) -> Result<Held> {
        let mut held = self.lock();
        if let Some(object) = &claim.exclusive
            && let Some(holder) = held.get(object)
        {
            return Err(busy(object, holder));
        }
        if let Some(object) = &claim.shared
            && let Some(holder @ Holder::One { .. }) = held.get(object)
        {
            return Err(busy(object, holder));
        }
        let since = Instant::now();
        if let Some(object) = &claim.exclusive {
            held.insert(object.clone(), Holder::One { doing, since });
        }
        if let Some(object) = &claim.shared {
            match held.entry(object.clone()) {
                Entry::Occupied(mut entry) => {
                    if let Holder::Several { count, .. } = entry.get_mut() {
                        *count += 1;
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(Holder::Several { doing, since, count: 1 });
                }
            }
        }
        Ok(Held { claims: Arc::clone(self), claim })
    }
}

fn busy(object: &Object, holder: &Holder) -> Error {
    let (doing, since) = match holder {
        Holder::One { doing, since } | Holder::Several { doing, since, .. } => (doing, since),
    };
    let for_seconds = since.elapsed().as_secs();
    Error::busy(format!("{object}: {doing} has been in progress for {for_seconds} s; repeat the call later"))
}

/// A claim that is held; dropping it releases the objects.
#[derive(Debug)]
struct Held {
    claims: Arc<Claims>,
    claim: Claim,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.claims.lock();
        if let Some(object) = &self.claim.exclusive {
            held.remove(object);
        }
        if let Some(object) = &self.claim.shared
            && let Some(Holder::Several { count, .. }) = held.get_mut(object)
        {
            *count -= 1;
            if *count == 0 {
                held.remove(object);
            }
        }
        // A storm leaves a large table behind; an idle driver gives the memory back.
        if held.is_empty() {
            held.shrink_to_fit();
        }
    }
}

/// The operations of this process. Cheap to clone; clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    claims: Arc<Claims>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Operations {
    /// Runs one operation. `doing` names it for others, such as `"expand volume"`.
    ///
    /// # Errors
    /// `Busy`: an object of the claim is in use. `Deadline`: the time is up, the work goes on until its next wait.
    /// `Unavailable`: the driver stops. Else those of the work.
    pub async fn run<T, W, F>(&self, rpc: &Rpc, claim: Claim, doing: &'static str, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Call) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if self.stopping.is_cancelled() {
            return Err(stopping(doing));
        }
        let held = self.claims.take(claim, doing)?;
        let call = rpc.call().clone();
        // However this function ends: the work learns that nobody waits any more.
        let _caller = call.gone().clone().drop_guard();
        let work = work(call);
        let task = self.tasks.spawn(async move {
            let result = work.await;
            // Before the answer: a caller that has it may come again at once.
            drop(held);
            result
        });
        tokio::select! {
            joined = task => joined.unwrap_or_else(|error| {
                Err(Error::internal(format!("{doing}: the operation broke off; this is a bug, please report it")).because(error))
            }),
            () = tokio::time::sleep_until(rpc.answer_by()) => Err(Error::new(
                Kind::Deadline,
                format!("{doing}: not finished in time; the step at hand is seen through, repeat the call to go on"),
            )),
            () = self.stopping.cancelled() => Err(stopping(doing)),
        }
    }

    /// Tells all operations to end at their next wait, and refuses new ones.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until no operation is left, at most this long; says whether none is.
    pub async fn ended(&self, at_most: Duration) -> bool {
        self.tasks.close();
        let ended = tokio::time::timeout(at_most, self.tasks.wait()).await.is_ok();
        self.tasks.reopen();
        ended
    }

    /// How many operations there are, those included whose callers are gone.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tasks.len()
    }
}

fn stopping(doing: &str) -> Error {
    Error::new(Kind::Unavailable, format!("{doing}: the driver is stopping; repeat the call when it is back"))
}

#[cfg(test)]
mod tests {
    use super::{Claim, Operations};
    use crate::csi::rpc::Rpc;
    use crate::error::{Kind, Result};
    use crate::model::{NodeId, VolumeId};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::Notify;

    fn volume(id: &str) -> VolumeId {
        id.parse().unwrap()
    }

    fn node(id: &str) -> NodeId {
        id.parse().unwrap()
    }

    /// Starts an operation that ends when it is told.
    fn start(operations: &Operations, claim: Claim) -> (Arc<Notify>, tokio::task::JoinHandle<Result<()>>) {
        let end = Arc::new(Notify::new());
        let (operations, told) = (operations.clone(), Arc::clone(&end));
        let task = tokio::spawn(async move {
            let rpc = Rpc::lasting(None);
            operations
                .run(&rpc, claim, "test", move |_| async move {
                    told.notified().await;
                    Ok(())
                })
                .await
        });
        (end, task)
    }

    async fn attempt(operations: &Operations, claim: Claim) -> Result<()> {
        operations.run(&Rpc::lasting(None), claim, "attempt", |_| async { Ok(()) }).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_operation_on_the_same_object_is_turned_away_at_once() {
        let operations = Operations::default();
        let (end, first) = start(&operations, Claim::volume(&volume("v")));
        tokio::task::yield_now().await;
        let error = attempt(&operations, Claim::volume(&volume("v"))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert!(error.to_string().contains("volume v: test"), "{error}");
        attempt(&operations, Claim::volume(&volume("w"))).await.unwrap();
        attempt(&operations, Claim::volume_name("v")).await.unwrap();
        end.notify_one();
        first.await.unwrap().unwrap();
        attempt(&operations, Claim::volume(&volume("v"))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn attachments_of_one_volume_change_side_by_side_but_not_while_the_volume_does() {
        let operations = Operations::default();
        let (end, first) = start(&operations, Claim::attachment(&volume("v"), &node("a")));
        tokio::task::yield_now().await;
        attempt(&operations, Claim::attachment(&volume("v"), &node("b"))).await.unwrap();
        assert!(attempt(&operations, Claim::attachment(&volume("v"), &node("a"))).await.is_err());
        assert!(attempt(&operations, Claim::volume(&volume("v"))).await.is_err());
        end.notify_one();
        first.await.unwrap().unwrap();
        let (end, first) = start(&operations, Claim::volume(&volume("v")));
        tokio::task::yield_now().await;
        assert!(attempt(&operations, Claim::attachment(&volume("v"), &node("a"))).await.is_err());
        end.notify_one();
        first.await.unwrap().unwrap();
        assert!(operations.claims.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_gone_leaves_the_object_claimed_until_the_work_ends() {
        let operations = Operations::default();
        let (end, first) = start(&operations, Claim::volume(&volume("v")));
        tokio::task::yield_now().await;
        first.abort();
        let _ = first.await;
        assert!(attempt(&operations, Claim::volume(&volume("v"))).await.unwrap_err().is(Kind::Busy));
        end.notify_one();
        assert!(operations.ended(Duration::from_secs(1)).await);
        attempt(&operations, Claim::volume(&volume("v"))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_waits_ends_when_its_caller_is_gone() {
        let operations = Operations::default();
        let rpc = Rpc::lasting(Some(Duration::from_secs(3600)));
        let work = operations.run(&rpc, Claim::volume(&volume("v")), "wait", |call| async move {
            call.sleep("wait", Duration::from_secs(1800)).await
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), work).await.is_err());
        assert!(operations.ended(Duration::from_secs(1)).await, "it should have ended when the caller went");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_end_in_time_is_answered_for() {
        let operations = Operations::default();
        let rpc = Rpc::lasting(Some(Duration::from_secs(10)));
        let error = operations
            .run(&rpc, Claim::volume(&volume("v")), "hang", |_| std::future::pending::<Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
        assert!(rpc.call().is_over());
        assert_eq!(operations.count(), 1, "the work is still there");
        assert!(attempt(&operations, Claim::volume(&volume("v"))).await.unwrap_err().is(Kind::Busy));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_the_object() {
        let operations = Operations::default();
        let claim = Claim::volume(&volume("v"));
        let error = operations
            .run::<(), _, _>(&Rpc::lasting(None), claim.clone(), "break", |_| async { panic!("on purpose") })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        attempt(&operations, claim).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_turns_callers_away_and_ends_the_work_at_its_next_wait() {
        let operations = Operations::default();
        let waiting = {
            let operations = operations.clone();
            tokio::spawn(async move {
                let rpc = Rpc::lasting(None);
                operations
                    .run(&rpc, Claim::none(), "wait", |call| async move {
                        call.sleep("wait", Duration::from_secs(100)).await
                    })
                    .await
            })
        };
        tokio::task::yield_now().await;
        operations.stop();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
        assert!(operations.ended(Duration::from_secs(1)).await);
        assert_eq!(attempt(&operations, Claim::none()).await.unwrap_err().kind(), Kind::Unavailable);
    }
}
