//! Shares of Manila: what RPCs cost, and that whatever happens to whichever of their calls, the RPC succeeds in the end
//! and nothing is left over.

use crate::driver::{Driver, Setup};
use crate::proto;
use crate::sidecar::{Sidecar, create_request, from_snapshot, until_done};
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};
use fuxi_csi::initiator::Initiator;
use fuxi_csi::seal::PrivateKey;
use std::time::Duration;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(60);

fn setup() -> Setup {
    Setup { provider: Some("manila"), ..Setup::default() }
}

/// A node that mounts shares from this address.
fn node(number: u8) -> String {
    let facts = Initiator {
        public_key: PrivateKey::generate().public(),
        host: format!("node-{number}"),
        ip: Some([10, 0, 0, number].into()),
        iqn: None,
        nqn: None,
        nvme_host_id: None,
        wwpns: Vec::new(),
        wwnns: Vec::new(),
        multipath: false,
        system_uuid: None,
    };
    facts.pack().unwrap().to_string()
}

#[tokio::test]
async fn rules_open_a_share_to_one_node_each_and_only_ours_are_revoked() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap();
    let (one, two) = (node(1), node(2));
    let who = |standin: &Standin| {
        standin.cloud(|cloud| cloud.manila.rules.iter().map(|rule| rule.to.clone()).collect::<Vec<_>>())
    };
    assert!(who(&standin).is_empty(), "a new share lets nobody in");
    let context = sidecar.publish(&share.volume_id, &one).await.unwrap();
    assert_eq!(context.get("kind").map(String::as_str), Some("nfs"));
    assert!(context["data"].contains(&share.volume_id), "{context:?}");
    assert_eq!(sidecar.publish(&share.volume_id, &one).await.unwrap(), context, "the same again");
    sidecar.publish(&share.volume_id, &two).await.unwrap();
    assert_eq!(who(&standin), ["10.0.0.1", "10.0.0.2"]);
    let published = sidecar.get(&share.volume_id).await.unwrap().status.unwrap().published_node_ids;
    assert_eq!(published.len(), 2);
    assert!(published.contains(&one) && published.contains(&two));
    sidecar.unpublish(&share.volume_id, &one).await.unwrap();
    sidecar.unpublish(&share.volume_id, &one).await.unwrap();
    assert_eq!(who(&standin), ["10.0.0.2"]);
    sidecar.unpublish(&share.volume_id, "").await.unwrap();
    sidecar.delete(&share.volume_id).await.unwrap();
    assert!(standin.cloud(|cloud| cloud.manila.shares.is_empty() && cloud.manila.rules.is_empty()));
}

#[tokio::test]
async fn what_the_rpcs_cost_alone() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let node = node(1);
    // Logs in, and learns what the service speaks.
    sidecar.list(1, "").await.unwrap();
    let count = || {
        let count = standin.count("*manila*");
        standin.clear_log();
        count
    };
    count();
    let share = sidecar.create("pvc-1", 1).await.unwrap();
    assert!(count() <= 4, "create");
    sidecar.publish(&share.volume_id, &node).await.unwrap();
    assert!(count() <= 5, "publish");
    assert_eq!(sidecar.expand(&share.volume_id, 2).await.unwrap(), 2 << 30);
    assert!(count() <= 3, "expand");
    let snapshot = sidecar.snapshot("snapshot-1", &share.volume_id, false).await.unwrap();
    assert!(count() <= 3, "snapshot");
    let request = proto::CreateVolumeRequest {
        volume_content_source: from_snapshot(&snapshot.snapshot_id),
        ..create_request("pvc-2", 2)
    };
    let restored = sidecar.create_as(request).await.unwrap();
    assert!(count() <= 4, "restore");
    sidecar.delete(&restored.volume_id).await.unwrap();
    assert!(count() <= 3, "delete");
    let error = sidecar.delete(&share.volume_id).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&snapshot.snapshot_id), "{error}");
}

#[tokio::test]
async fn a_rule_that_the_back_end_refuses_is_an_error_and_does_not_stay() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap();
    standin.cloud(|cloud| cloud.manila.refuses_rules = true);
    let error = sidecar.publish(&share.volume_id, &node(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.message().contains("10.0.0.1"), "{error}");
    standin.cloud(|cloud| cloud.manila.refuses_rules = false);
    sidecar.publish(&share.volume_id, &node(1)).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.manila.rules.len()), 1);
}

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
}

const FLOWS: [Flow; 8] = [
    Flow::Create,
    Flow::Restore,
    Flow::Delete,
    Flow::Publish,
    Flow::Unpublish,
    Flow::Expand,
    Flow::Snapshot,
    Flow::DeleteSnapshot,
];

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
            Flow::Restore => {
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
            Flow::DeleteSnapshot => sidecar.delete_snapshot(&self.snapshot).await?,
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

/// Every fault at every call of every RPC: the RPC is repeated until it succeeds, then everything is undone, and nothing
/// is left.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_call_nothing_is_left() {
    let mut cases = 0;
    for flow in FLOWS {
        let standin = Standin::start();
        let mut driver = Driver::start_with(&standin, setup()).await;
        let clean = Subject::prepare("clean".to_owned(), flow, &Sidecar::new(&driver)).await;
        standin.clear_log();
        let done = clean.run(flow, &Sidecar::new(&driver)).await.unwrap();
        let calls = standin.count("*manila*");
        assert!(calls > 0, "{flow:?} makes no call");
        done.undo(&Sidecar::new(&driver)).await.unwrap();
        for call in 1..=calls {
            for (what, action) in faults() {
                let case = format!("{flow:?}, call {call} of {calls}, {what}");
                let name = format!("pvc-{cases}");
                let subject = Subject::prepare(name, flow, &Sidecar::new(&driver)).await;
                let nth = u32::try_from(call).unwrap();
                standin.inject(Rule::on("*manila*", action).nth(nth));
                let run = until_done(&standin, &mut driver, PATIENCE, async |sidecar| subject.run(flow, sidecar).await);
                let (done, _) = run.await.unwrap_or_else(|error| panic!("{case}: {error}"));
                standin.clear_faults();
                let undone = until_done(&standin, &mut driver, PATIENCE, async |sidecar| done.undo(sidecar).await);
                undone.await.unwrap_or_else(|error| panic!("{case}, undone: {error}"));
                standin.cloud(|cloud| {
                    let manila = &cloud.manila;
                    let left = (manila.shares.len(), manila.snapshots.len(), manila.rules.len());
                    assert_eq!(left, (0, 0, 0), "{case}: shares, snapshots and rules left");
                });
                cases += 1;
            }
        }
    }
    println!("{cases} cases, nothing left");
}
