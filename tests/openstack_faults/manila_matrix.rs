//! The kill matrix of shares: every fault at every call to Manila of every RPC. The RPC is repeated until it succeeds, then
//! everything is undone, and nothing may be left.
//!
//! One test per RPC; each runs its cases with several drivers at once, since they wait more than they work.

use crate::driver::Driver;
use crate::manila::{node, setup};
use crate::proto;
use crate::sidecar::{Sidecar, create_request, from_snapshot, until_done};
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::Status;

/// How long an RPC is repeated before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many clouds with a driver each work at the same time, for one RPC.
const WORKERS: usize = 12;

/// An RPC under test.
#[derive(Debug, Clone, Copy)]
enum Flow {
    Create,
    Restore,
    Delete,
    Publish,
    Unpublish,
    Expand,
    Snapshot,
    DeleteSnapshot,
    Backup,
    DeleteBackup,
    RestoreBackup,
}

/// What may happen to a call.
fn faults() -> [(&'static str, Action); 9] {
    [
        ("killed before", Action::KillBefore),
        ("killed after", Action::KillAfter),
        ("answer lost", Action::LoseAnswer),
        ("reset", Action::Reset),
        ("503", Action::status(503)),
        ("429", Action::Status { status: 429, retry_after: Some(0) }),
        ("500", Action::status(500)),
        ("504 although done", Action::StatusAfter { status: 504 }),
        ("token revoked", Action::RevokeToken),
    ]
}

/// What a flow works on.
#[derive(Debug, Clone, Default)]
struct Subject {
    name: String,
    node: String,
    share: String,
    snapshot: String,
    restored: Option<String>,
}

impl Subject {
    async fn prepare(name: String, flow: Flow, sidecar: &Sidecar) -> Self {
        let mut subject = Self { node: node(1), name, ..Self::default() };
        if !matches!(flow, Flow::Create) {
            subject.share = sidecar.create(&subject.name, 1).await.unwrap().volume_id;
        }
        if matches!(flow, Flow::Restore | Flow::DeleteSnapshot) {
            let taken = sidecar.snapshot(&format!("{}-s", subject.name), &subject.share, false).await;
            subject.snapshot = taken.unwrap().snapshot_id;
        }
        if matches!(flow, Flow::RestoreBackup | Flow::DeleteBackup) {
            let taken = sidecar.ready_snapshot(&format!("{}-b", subject.name), &subject.share, true).await;
            subject.snapshot = taken.unwrap().snapshot_id;
        }
        if matches!(flow, Flow::Unpublish) {
            sidecar.publish(&subject.share, &subject.node).await.unwrap();
        }
        subject
    }

    /// The RPC itself, and what it made.
    async fn run(&self, flow: Flow, sidecar: &Sidecar) -> Result<Self, Status> {
        let mut now = self.clone();
        match flow {
            Flow::Create => now.share = sidecar.create(&self.name, 1).await?.volume_id,
            Flow::Restore | Flow::RestoreBackup => {
                let request = proto::CreateVolumeRequest {
                    volume_content_source: from_snapshot(&self.snapshot),
                    ..create_request(&format!("{}-r", self.name), 1)
                };
                now.restored = Some(sidecar.create_as(request).await?.volume_id);
            }
            Flow::Delete => sidecar.delete(&self.share).await?,
            Flow::Publish => {
                let context = sidecar.publish(&self.share, &self.node).await?;
                assert!(context["data"].contains(&self.share));
            }
            Flow::Unpublish => sidecar.unpublish(&self.share, &self.node).await?,
            Flow::Expand => assert_eq!(sidecar.expand(&self.share, 2).await?, 2 << 30),
            Flow::Snapshot => {
                let name = format!("{}-s", self.name);
                now.snapshot = sidecar.snapshot(&name, &self.share, false).await?.snapshot_id;
            }
            Flow::Backup => {
                let name = format!("{}-b", self.name);
                now.snapshot = sidecar.snapshot(&name, &self.share, true).await?.snapshot_id;
            }
            Flow::DeleteSnapshot | Flow::DeleteBackup => sidecar.delete_snapshot(&self.snapshot).await?,
        }
        Ok(now)
    }

    /// Undoes everything, as an orchestrator does that knows what it was told and nothing else.
    async fn undo(&self, sidecar: &Sidecar) -> Result<(), Status> {
        if let Some(restored) = &self.restored {
            sidecar.delete(restored).await?;
        }
        if !self.snapshot.is_empty() {
            sidecar.delete_snapshot(&self.snapshot).await?;
        }
        sidecar.unpublish(&self.share, &self.node).await?;
        sidecar.delete(&self.share).await
    }
}

/// A fault at a call, counted from 1.
#[derive(Debug, Clone)]
struct Case {
    call: u32,
    what: &'static str,
    action: Action,
}

/// One cloud with one driver.
struct Bench {
    standin: Standin,
    driver: Driver,
}

impl Bench {
    async fn new() -> Self {
        let standin = Standin::start();
        let driver = Driver::start_with(&standin, setup()).await;
        Self { standin, driver }
    }

    /// How many calls an RPC makes to which nothing happens.
    async fn calls(&self, flow: Flow) -> u32 {
        let sidecar = Sidecar::new(&self.driver);
        let subject = Subject::prepare("clean".to_owned(), flow, &sidecar).await;
        self.standin.clear_log();
        let done = subject.run(flow, &sidecar).await.unwrap();
        let calls = self.standin.count("*manila*");
        done.undo(&sidecar).await.unwrap();
        u32::try_from(calls).unwrap()
    }

    /// Runs one case; whether the fault struck: a driver that knows the cloud makes fewer calls than at first.
    async fn run(&mut self, flow: Flow, case: Case) -> bool {
        let Self { standin, driver } = self;
        let Case { call, what, action } = case;
        let subject = Subject::prepare(format!("pvc-{call}-{what}"), flow, &Sidecar::new(driver)).await;
        let strikes = standin.inject(Rule::on("*manila*", action).nth(call));
        let run = until_done(standin, driver, PATIENCE, async |sidecar| subject.run(flow, sidecar).await);
        let (done, _) = run.await.unwrap_or_else(|error| panic!("{flow:?}, call {call}, {what}: {error}"));
        standin.clear_faults();
        let undone = until_done(standin, driver, PATIENCE, async |sidecar| done.undo(sidecar).await);
        undone.await.unwrap_or_else(|error| panic!("{flow:?}, call {call}, {what}, undone: {error}"));
        standin.cloud(|cloud| {
            let manila = &cloud.manila;
            let left = (manila.shares.len(), manila.snapshots.len(), manila.backups.len(), manila.rules.len());
            assert_eq!(left, (0, 0, 0, 0), "{flow:?}, call {call}, {what}: shares, snapshots, backups and rules left");
        });
        strikes.count() > 0
    }
}

fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn whatever_happens_nothing_is_left(flow: Flow) {
    let calls = in_a_runtime(async { Bench::new().await.calls(flow).await });
    assert!(calls > 0, "{flow:?} makes no call");
    let all = (1..=calls).flat_map(|call| faults().map(|(what, action)| Case { call, what, action }));
    let cases: VecDeque<Case> = all.collect();
    let count = cases.len();
    let queue = Mutex::new(cases);
    let work = || {
        in_a_runtime(async {
            let (mut bench, mut struck) = (Bench::new().await, Vec::new());
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(case) = next else { return struck };
                let what = case.what;
                if bench.run(flow, case).await {
                    struck.push(what);
                }
            }
        })
    };
    let struck: Vec<&str> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(count)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker of the matrix")).collect()
    });
    for (what, _) in faults() {
        assert!(struck.contains(&what), "{flow:?}: {what} struck no call, so nothing is proven for it");
    }
    println!("{flow:?}: {count} cases, {} faults struck, nothing left", struck.len());
}

#[test]
fn whatever_happens_while_creating_a_share_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Create);
}

#[test]
fn whatever_happens_while_making_a_share_of_a_snapshot_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Restore);
}

#[test]
fn whatever_happens_while_deleting_a_share_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Delete);
}

#[test]
fn whatever_happens_while_opening_a_share_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Publish);
}

#[test]
fn whatever_happens_while_closing_a_share_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Unpublish);
}

#[test]
fn whatever_happens_while_growing_a_share_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Expand);
}

#[test]
fn whatever_happens_while_taking_a_snapshot_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Snapshot);
}

#[test]
fn whatever_happens_while_deleting_a_snapshot_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::DeleteSnapshot);
}

#[test]
fn whatever_happens_while_backing_a_share_up_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::Backup);
}

#[test]
fn whatever_happens_while_deleting_a_backup_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::DeleteBackup);
}

#[test]
fn whatever_happens_while_making_a_share_of_a_backup_nothing_is_left() {
    whatever_happens_nothing_is_left(Flow::RestoreBackup);
}
