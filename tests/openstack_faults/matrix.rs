//! The kill matrix: every fault at every OpenStack call of every controller RPC.
//!
//! Each flow is run once without a fault, which tells how many calls it makes. Then, for each of these calls and each
//! fault, it is run again with that fault at that call; the RPC is repeated, as the sidecars do, until it succeeds; the
//! result is compared with what was asked for; everything is undone; and nothing may be left in the cloud.

use crate::driver::Driver;
use crate::proto;
use crate::proto::volume_capability::access_mode::Mode;
use crate::sidecar::{GIB, Sidecar, capability, create_request, from_snapshot, from_volume, until_done};
use crate::standin::Standin;
use crate::standin::cloud::{Kind, Outcome, Step};
use crate::standin::fault::{Action, Gate, Rule};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::Status;

/// How long an RPC is repeated before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// The deadline of the first attempt while its call is held up, and how long the call is.
const SHORT_DEADLINE: Duration = Duration::from_millis(600);
const HELD_UP: Duration = Duration::from_millis(1200);

/// How many clouds with a driver each work at the same time.
const WORKERS: usize = 24;

/// One RPC, from a prepared start to a checked end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flow {
    Create,
    CreateFromSnapshot,
    CreateFromVolume,
    CreateFromBackup,
    CreateOverError,
    Delete,
    Publish,
    PublishToSecond,
    Unpublish,
    UnpublishFromAll,
    ExpandOffline,
    ExpandOnline,
    Snapshot,
    SnapshotInUse,
    Backup,
    BackupInUse,
    DeleteSnapshot,
    DeleteBackup,
    ListVolumes,
    ListSnapshots,
    Get,
    Validate,
    Capacity,
}

impl Flow {
    const ALL: [Self; 23] = [
        Self::Create,
        Self::CreateFromSnapshot,
        Self::CreateFromVolume,
        Self::CreateFromBackup,
        Self::CreateOverError,
        Self::Delete,
        Self::Publish,
        Self::PublishToSecond,
        Self::Unpublish,
        Self::UnpublishFromAll,
        Self::ExpandOffline,
        Self::ExpandOnline,
        Self::Snapshot,
        Self::SnapshotInUse,
        Self::Backup,
        Self::BackupInUse,
        Self::DeleteSnapshot,
        Self::DeleteBackup,
        Self::ListVolumes,
        Self::ListSnapshots,
        Self::Get,
        Self::Validate,
        Self::Capacity,
    ];

    /// What must be there before.
    fn needs_volume(self) -> bool {
        !matches!(self, Self::Create | Self::CreateOverError)
    }

    fn needs_snapshot(self) -> bool {
        matches!(self, Self::CreateFromSnapshot | Self::DeleteSnapshot | Self::ListSnapshots)
    }

    fn needs_backup(self) -> bool {
        matches!(self, Self::CreateFromBackup | Self::DeleteBackup | Self::ListSnapshots)
    }

    fn needs_attachment(self) -> bool {
        matches!(
            self,
            Self::PublishToSecond
                | Self::Unpublish
                | Self::UnpublishFromAll
                | Self::ExpandOnline
                | Self::SnapshotInUse
                | Self::BackupInUse
        )
    }

    fn is_multiattach(self) -> bool {
        matches!(self, Self::PublishToSecond | Self::UnpublishFromAll)
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillBefore,
    KillAfter,
    AnswerLost,
    Reset,
    Unavailable,
    TooMany,
    ServerError,
    /// The gateway answers 504 although the call was done.
    GatewayTimeout,
    Revoked,
    /// The call is held up beyond the RPC's deadline, the RPC is repeated meanwhile, then the call reaches the cloud.
    Slow,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::KillBefore,
        Self::KillAfter,
        Self::AnswerLost,
        Self::Reset,
        Self::Unavailable,
        Self::TooMany,
        Self::ServerError,
        Self::GatewayTimeout,
        Self::Revoked,
        Self::Slow,
    ];

    fn action(self, gate: &Gate) -> Action {
        match self {
            Self::KillBefore => Action::KillBefore,
            Self::KillAfter => Action::KillAfter,
            Self::AnswerLost => Action::LoseAnswer,
            Self::Reset => Action::Reset,
            Self::Unavailable => Action::status(503),
            Self::TooMany => Action::Status { status: 429, retry_after: Some(1) },
            Self::ServerError => Action::status(500),
            Self::GatewayTimeout => Action::StatusAfter { status: 504 },
            Self::Revoked => Action::RevokeToken,
            Self::Slow => Action::Hold(gate.clone()),
        }
    }
}

/// What a flow works on.
#[derive(Debug, Default)]
struct Subject {
    name: String,
    nodes: Vec<String>,
    volume: String,
    snapshot: String,
    backup: String,
    /// What the RPC under test made.
    made_volume: Option<proto::Volume>,
    made_snapshot: Option<proto::Snapshot>,
}

/// One cloud and one driver.
struct Bench {
    standin: Standin,
    driver: Driver,
}

/// What came of one case.
#[derive(Debug)]
struct Verdict {
    flow: Flow,
    fault: Option<Fault>,
    nth: u32,
    call: String,
    attempts: u32,
    /// Whether the fault struck.
    struck: bool,
    /// What is wrong; empty when nothing is.
    stuck: Option<String>,
    wrong: Option<String>,
    leaks: Vec<String>,
}

impl Bench {
    async fn new() -> Self {
        let standin = Standin::start();
        standin.cloud(|cloud| cloud.add_server("node-2"));
        let driver = Driver::start(&standin).await;
        Self { standin, driver }
    }

    /// Runs one case; without a fault it tells the calls.
    async fn run(&mut self, flow: Flow, fault: Option<Fault>, nth: u32, call: &str) -> (Verdict, Vec<String>) {
        static NAMES: AtomicU32 = AtomicU32::new(1);
        let mut verdict = Verdict {
            flow,
            fault,
            nth,
            call: call.to_owned(),
            attempts: 0,
            struck: false,
            stuck: None,
            wrong: None,
            leaks: Vec::new(),
        };
        let mut subject = Subject {
            name: format!("pvc-{:04}", NAMES.fetch_add(1, Ordering::SeqCst)),
            nodes: self.standin.cloud(|cloud| cloud.servers.iter().map(|server| server.id.clone()).collect()),
            ..Subject::default()
        };
        if let Err(error) = self.prepare(flow, &mut subject).await {
            verdict.stuck = Some(format!("the preparation failed: {error}"));
            self.renew().await;
            return (verdict, Vec::new());
        }
        let gate = Gate::default();
        self.standin.clear_log();
        let strikes = fault.map(|fault| self.standin.inject(Rule::on("*", fault.action(&gate)).nth(nth)));
        let result = self.act_until_done(flow, &mut subject, fault, &gate).await;
        let calls = self.standin.calls();
        verdict.struck = strikes.is_some_and(|strikes| strikes.count() > 0);
        self.standin.clear_faults();
        gate.open();
        match result {
            Ok(attempts) => {
                verdict.attempts = attempts;
                verdict.wrong = self.check(flow, &subject).err();
                verdict.stuck = self.undo(flow, &subject).await.err();
            }
            Err(error) => verdict.stuck = Some(error),
        }
        verdict.leaks = self.inventory_once_settled().await;
        if verdict.stuck.is_some() || !verdict.leaks.is_empty() {
            self.renew().await;
        }
        (verdict, calls)
    }

    /// A fresh cloud and driver after a case that left something.
    async fn renew(&mut self) {
        *self = Self::new().await;
    }

    async fn prepare(&mut self, flow: Flow, subject: &mut Subject) -> Result<(), Status> {
        let sidecar = Sidecar::new(&self.driver);
        if flow.needs_volume() {
            let mut request = create_request(&format!("{}-source", subject.name), 1);
            if flow.is_multiattach() {
                request.parameters.insert("type".to_owned(), "multi".to_owned());
                request.volume_capabilities = vec![capability(Mode::MultiNodeMultiWriter, true)];
            }
            subject.volume = sidecar.create_as(request).await?.volume_id;
        }
        if flow.needs_attachment() {
            self.publish(flow, subject, 0).await?;
        }
        if flow == Flow::UnpublishFromAll {
            self.publish(flow, subject, 1).await?;
        }
        if flow.needs_snapshot() {
            let name = format!("{}-snapshot", subject.name);
            subject.snapshot = sidecar.ready_snapshot(&name, &subject.volume, false).await?.snapshot_id;
        }
        if flow.needs_backup() {
            let name = format!("{}-backup", subject.name);
            subject.backup = sidecar.ready_snapshot(&name, &subject.volume, true).await?.snapshot_id;
        }
        if flow == Flow::CreateOverError {
            self.standin.cloud(|cloud| {
                cloud.plan(
                    Step::CreateVolume,
                    Outcome::Error(
                        "schedule allocate volume:Could not find any available weighted backend.".to_owned(),
                    ),
                );
            });
        }
        Ok(())
    }

    async fn publish(&self, flow: Flow, subject: &Subject, node: usize) -> Result<(), Status> {
        let mode = if flow.is_multiattach() {
            capability(Mode::MultiNodeMultiWriter, true)
        } else {
            crate::sidecar::mounted()
        };
        Sidecar::new(&self.driver).publish_as(&subject.volume, &subject.nodes[node], mode).await.map(drop)
    }

    /// The RPC under test, once.
    async fn act(sidecar: &Sidecar, flow: Flow, subject: &mut Subject) -> Result<(), Status> {
        let mut create = create_request(&subject.name, 1);
        match flow {
            Flow::Create | Flow::CreateOverError => {}
            Flow::CreateFromSnapshot => create.volume_content_source = from_snapshot(&subject.snapshot),
            Flow::CreateFromBackup => create.volume_content_source = from_snapshot(&subject.backup),
            Flow::CreateFromVolume => create.volume_content_source = from_volume(&subject.volume),
            Flow::Delete => return sidecar.delete(&subject.volume).await,
            Flow::Publish => return sidecar.publish(&subject.volume, &subject.nodes[0]).await.map(drop),
            Flow::PublishToSecond => {
                let block = capability(Mode::MultiNodeMultiWriter, true);
                return sidecar.publish_as(&subject.volume, &subject.nodes[1], block).await.map(drop);
            }
            Flow::Unpublish => return sidecar.unpublish(&subject.volume, &subject.nodes[0]).await,
            Flow::UnpublishFromAll => return sidecar.unpublish(&subject.volume, "").await,
            Flow::ExpandOffline | Flow::ExpandOnline => {
                let size = sidecar.expand(&subject.volume, 2).await?;
                return if size == 2 * GIB { Ok(()) } else { Err(Status::data_loss(format!("expanded to {size}"))) };
            }
            Flow::Snapshot | Flow::SnapshotInUse | Flow::Backup | Flow::BackupInUse => {
                let backup = matches!(flow, Flow::Backup | Flow::BackupInUse);
                let made = sidecar.ready_snapshot(&subject.name, &subject.volume, backup).await?;
                subject.made_snapshot = Some(made);
                return Ok(());
            }
            Flow::DeleteSnapshot => return sidecar.delete_snapshot(&subject.snapshot).await,
            Flow::DeleteBackup => return sidecar.delete_snapshot(&subject.backup).await,
            Flow::ListVolumes => {
                let listed = sidecar.list(0, "").await?;
                let has = |entry: &proto::list_volumes_response::Entry| {
                    entry.volume.as_ref().is_some_and(|volume| volume.volume_id == subject.volume)
                };
                return if listed.entries.iter().any(has) { Ok(()) } else { Err(Status::data_loss("not listed")) };
            }
            Flow::ListSnapshots => {
                let listed = sidecar.list_snapshots(proto::ListSnapshotsRequest::default()).await?;
                return if listed.entries.len() == 2 { Ok(()) } else { Err(Status::data_loss("not two listed")) };
            }
            Flow::Get => return sidecar.get(&subject.volume).await.map(drop),
            Flow::Validate => return sidecar.validate(&subject.volume).await,
            Flow::Capacity => return sidecar.capacity().await.map(drop),
        }
        subject.made_volume = Some(sidecar.create_as(create).await?);
        Ok(())
    }

    async fn act_until_done(
        &mut self,
        flow: Flow,
        subject: &mut Subject,
        fault: Option<Fault>,
        gate: &Gate,
    ) -> Result<u32, String> {
        if fault == Some(Fault::Slow) {
            let opener = gate.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HELD_UP).await;
                opener.open();
            });
        }
        let mut first = fault == Some(Fault::Slow);
        let done = until_done(&self.standin, &mut self.driver, PATIENCE, async |sidecar| {
            let sidecar = if first { sidecar.with_deadline(SHORT_DEADLINE) } else { sidecar.clone() };
            first = false;
            Self::act(&sidecar, flow, subject).await
        })
        .await;
        done.map(|((), attempts)| attempts)
    }

    /// Whether the cloud is as the RPC promised.
    fn check(&self, flow: Flow, subject: &Subject) -> Result<(), String> {
        let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        self.standin.cloud(|cloud| {
            if let Some(made) = &subject.made_volume {
                let named = cloud.named(Kind::Volume, &subject.name);
                let [volume] = named.as_slice() else {
                    return Err(format!("{} volumes of that name", named.len()));
                };
                ensure(made.volume_id == volume.id, "another volume was answered")?;
                ensure(volume.status == "available", "the volume is not available")?;
                ensure(made.capacity_bytes == GIB && volume.size == 1, "the size is wrong")?;
                ensure(
                    (flow == Flow::CreateFromSnapshot) == volume.snapshot_id.is_some()
                        && (flow == Flow::CreateFromVolume) == volume.source_volid.is_some(),
                    "the source is wrong",
                )?;
            }
            if let Some(made) = &subject.made_snapshot {
                let backup = matches!(flow, Flow::Backup | Flow::BackupInUse);
                let kind = if backup { Kind::Backup } else { Kind::Snapshot };
                let named = cloud.named(kind, &subject.name);
                let [snapshot] = named.as_slice() else {
                    return Err(format!("{} {}s of that name", named.len(), kind.singular()));
                };
                ensure(made.snapshot_id.ends_with(&snapshot.id), "another snapshot was answered")?;
                ensure(made.source_volume_id == subject.volume, "the source is wrong")?;
                let snapshots = cloud.items.iter().filter(|item| item.kind == Kind::Snapshot).count();
                ensure(!backup || snapshots == 0, "the backup's own snapshot was not removed")?;
            }
            let attached = |node: usize| {
                let on = |disk: &&crate::standin::cloud::Disk| {
                    disk.volume == subject.volume && disk.server == subject.nodes[node]
                };
                cloud.disks.iter().filter(on).count()
            };
            match flow {
                Flow::Delete => ensure(cloud.volume(&subject.volume).is_none(), "the volume is still there"),
                Flow::Publish => ensure(attached(0) == 1, "not attached once"),
                Flow::PublishToSecond => ensure(attached(0) == 1 && attached(1) == 1, "not attached to both"),
                Flow::Unpublish | Flow::UnpublishFromAll => {
                    // Which servers these were only Cinder can tell: what it has let go, a driver that was killed
                    // meanwhile cannot ask Nova about.
                    let nova_may_lag = flow == Flow::UnpublishFromAll;
                    ensure(nova_may_lag || attached(0) + attached(1) == 0, "Nova has the disk still")?;
                    let status = cloud.volume(&subject.volume).map(|volume| volume.status.clone());
                    ensure(status.as_deref() == Some("available"), "Cinder has it attached still")
                }
                Flow::ExpandOffline | Flow::ExpandOnline => {
                    ensure(cloud.volume(&subject.volume).is_some_and(|volume| volume.size == 2), "not 2 GiB")
                }
                Flow::DeleteSnapshot => {
                    ensure(cloud.item(Kind::Snapshot, &subject.snapshot).is_none(), "the snapshot is still there")
                }
                Flow::DeleteBackup => {
                    let left = cloud.items.iter().any(|item| item.kind == Kind::Backup);
                    ensure(!left, "the backup is still there")
                }
                _ => Ok(()),
            }
        })
    }

    /// Everything the flow made is taken away again, through the driver.
    async fn undo(&mut self, flow: Flow, subject: &Subject) -> Result<(), String> {
        let Self { standin, driver } = self;
        let published = flow.needs_attachment() || flow == Flow::Publish;
        if published {
            for node in &subject.nodes {
                until_done(standin, driver, PATIENCE, async |it| it.unpublish(&subject.volume, node).await)
                    .await
                    .map_err(|error| format!("undo: unpublish: {error}"))?;
            }
        }
        if let Some(made) = &subject.made_volume {
            until_done(standin, driver, PATIENCE, async |it| it.delete(&made.volume_id).await)
                .await
                .map_err(|error| format!("undo: delete: {error}"))?;
        }
        let made = subject.made_snapshot.as_ref().map(|made| &made.snapshot_id);
        for id in [Some(&subject.snapshot), Some(&subject.backup), made].into_iter().flatten() {
            if !id.is_empty() {
                until_done(standin, driver, PATIENCE, async |it| it.delete_snapshot(id).await)
                    .await
                    .map_err(|error| format!("undo: delete snapshot: {error}"))?;
            }
        }
        if flow.needs_volume() {
            until_done(standin, driver, PATIENCE, async |it| it.delete(&subject.volume).await)
                .await
                .map_err(|error| format!("undo: delete the source: {error}"))?;
        }
        Ok(())
    }

    /// What is left; what is only on its way out gets a moment.
    async fn inventory_once_settled(&self) -> Vec<String> {
        self.standin.cloud(crate::standin::cloud::Cloud::clear_plans);
        for _ in 0..20 {
            if self.standin.cloud(|cloud| cloud.inventory()).is_empty() {
                return Vec::new();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.standin.cloud(|cloud| cloud.inventory())
    }
}

#[test]
fn every_fault_at_every_call_of_every_rpc_ends_in_the_same_result_with_nothing_left_over() {
    let only = std::env::var("FUXI_MATRIX_FLOW").ok();
    let flows: Vec<Flow> =
        Flow::ALL.into_iter().filter(|flow| only.as_ref().is_none_or(|name| format!("{flow:?}") == *name)).collect();

    // The calls of each flow, from a run without a fault.
    let traces = in_parallel(flows.iter().map(|flow| (*flow, None, 0, String::new())).collect());
    let mut cases = VecDeque::new();
    let mut broken = Vec::new();
    for (verdict, calls) in traces {
        if verdict.stuck.is_some() || verdict.wrong.is_some() || !verdict.leaks.is_empty() {
            broken.push(format!("{verdict:#?}\ncalls: {calls:#?}"));
        }
        println!("{:?}: {}", verdict.flow, calls.join(", "));
        for fault in Fault::ALL {
            for (nth, call) in (1..).zip(&calls) {
                cases.push_back((verdict.flow, Some(fault), nth, call.clone()));
            }
        }
    }
    assert!(broken.is_empty(), "flows that fail without any fault:\n{}", broken.join("\n"));

    let verdicts: Vec<Verdict> = in_parallel(cases).into_iter().map(|(verdict, _)| verdict).collect();
    let bad = report(&verdicts);
    for flow in flows {
        let struck = |fault| {
            verdicts.iter().any(|verdict| verdict.flow == flow && verdict.fault == Some(fault) && verdict.struck)
        };
        for fault in Fault::ALL {
            assert!(struck(fault), "{fault:?} struck no call of {flow:?}: the matrix proves nothing for it");
        }
    }
    assert!(bad.is_empty(), "{} bad cases:\n{}", bad.len(), bad.join("\n"));
}

type Case = (Flow, Option<Fault>, u32, String);

/// Runs the cases, several at a time, each worker with a cloud, a driver and a thread of its own.
fn in_parallel(cases: VecDeque<Case>) -> Vec<(Verdict, Vec<String>)> {
    let workers = WORKERS.min(cases.len());
    let queue = Mutex::new(cases);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((flow, fault, nth, call)) = next else { return done };
                done.push(bench.run(flow, fault, nth, &call).await);
            }
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker of the matrix")).collect()
    })
}

/// Prints the table; returns a line for each bad case.
fn report(verdicts: &[Verdict]) -> Vec<String> {
    #[derive(Default)]
    struct Row {
        tried: usize,
        leaks: usize,
        stuck: usize,
        wrong: usize,
        missed: usize,
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut bad = Vec::new();
    for verdict in verdicts {
        let fault = verdict.fault.map(|fault| format!("{fault:?}")).unwrap_or_default();
        for key in [format!("flow  {:?}", verdict.flow), format!("fault {fault}"), "total".to_owned()] {
            let row = rows.entry(key).or_default();
            row.tried += usize::from(verdict.struck);
            row.missed += usize::from(!verdict.struck);
            row.leaks += usize::from(!verdict.leaks.is_empty());
            row.stuck += usize::from(verdict.stuck.is_some());
            row.wrong += usize::from(verdict.wrong.is_some());
        }
        if !verdict.leaks.is_empty() || verdict.stuck.is_some() || verdict.wrong.is_some() {
            bad.push(format!(
                "{:?}, {fault} at call {} ({}), {} attempts: stuck {:?}, wrong {:?}, left {:?}",
                verdict.flow, verdict.nth, verdict.call, verdict.attempts, verdict.stuck, verdict.wrong, verdict.leaks
            ));
        }
    }
    println!("{:<28} {:>6} {:>6} {:>6} {:>6} {:>11}", "", "tried", "leaks", "stuck", "wrong", "not reached");
    for (key, row) in rows {
        println!("{key:<28} {:>6} {:>6} {:>6} {:>6} {:>11}", row.tried, row.leaks, row.stuck, row.wrong, row.missed);
    }
    bad
}
