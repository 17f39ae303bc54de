//! One cloud with one driver, on which cases run one after the other.

use super::fault::Fault;
use super::flow::{Flow, Subject};
use super::report::Verdict;
use crate::driver::Driver;
use crate::sidecar::{Sidecar, until_done};
use crate::standin::Standin;
use crate::standin::cloud::{Cloud, Outcome, Pace, Step};
use crate::standin::fault::{Gate, Rule};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long an RPC is repeated before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// The deadline of the first attempt while its call is held up, and how long the call is.
const SHORT_DEADLINE: Duration = Duration::from_millis(600);
const HELD_UP: Duration = Duration::from_millis(1200);

/// How long every change in the cloud takes: long enough for a driver to be killed in the midst of it.
const CHANGE: Pace = Pace::millis(80);

/// One RPC, and what happens to its calls.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) flow: Flow,
    /// Each at the nth call, counted from 1.
    pub(super) faults: Vec<(Fault, u32)>,
    /// Which call that was in the run without faults.
    pub(super) call: String,
}

/// One cloud and one driver.
pub(super) struct Bench {
    standin: Standin,
    driver: Driver,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let standin = Standin::start();
        standin.cloud(|cloud| {
            cloud.add_server("node-2");
            let paces = &mut cloud.paces;
            for pace in [
                &mut paces.create,
                &mut paces.delete,
                &mut paces.snapshot,
                &mut paces.backup,
                &mut paces.extend,
                &mut paces.attach,
                &mut paces.detach,
                &mut paces.nova_lag,
            ] {
                *pace = CHANGE;
            }
        });
        let driver = Driver::start(&standin).await;
        Self { standin, driver }
    }

    /// Runs one case; also tells the calls that were made.
    pub(super) async fn run(&mut self, case: &Case) -> (Verdict, Vec<String>) {
        static NAMES: AtomicU32 = AtomicU32::new(1);
        let mut verdict = Verdict::new(case.clone());
        let mut subject = Subject {
            name: format!("pvc-{:04}", NAMES.fetch_add(1, Ordering::SeqCst)),
            nodes: self.standin.cloud(|cloud| cloud.servers.iter().map(|server| server.id.clone()).collect()),
            ..Subject::default()
        };
        let flow = case.flow;
        if let Err(error) = subject.prepare(flow, &Sidecar::new(&self.driver)).await {
            verdict.stuck = Some(format!("the preparation failed: {error}"));
            *self = Self::new().await;
            return (verdict, Vec::new());
        }
        if flow == Flow::CreateOverError {
            let reason = "schedule allocate volume:Could not find any available weighted backend.".to_owned();
            self.standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Error(reason)));
        }

        let gate = Gate::default();
        self.standin.clear_log();
        let rule = |(fault, nth): &(Fault, u32)| Rule::on("*", fault.action(&gate)).nth(*nth);
        let strikes: Vec<_> = case.faults.iter().map(|fault| self.standin.inject(rule(fault))).collect();
        let result = self.act_until_done(case, &mut subject, &gate).await;
        let calls = self.standin.calls();
        verdict.struck = strikes.iter().filter(|strikes| strikes.count() > 0).count();
        self.standin.clear_faults();
        gate.open();

        match result {
            Ok(attempts) => {
                verdict.attempts = attempts;
                verdict.wrong = self.standin.cloud(|cloud| subject.check(flow, cloud)).err();
                verdict.stuck = self.undo(flow, &subject).await.err();
            }
            Err(error) => verdict.stuck = Some(error),
        }
        verdict.leaks = self.inventory_once_settled().await;
        if verdict.is_bad() {
            verdict.log = self.driver.log();
            *self = Self::new().await;
        }
        (verdict, calls)
    }

    async fn act_until_done(&mut self, case: &Case, subject: &mut Subject, gate: &Gate) -> Result<u32, String> {
        let mut in_haste = case.faults.iter().any(|(fault, _)| *fault == Fault::Slow);
        if in_haste {
            let gate = gate.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HELD_UP).await;
                gate.open();
            });
        }
        let done = until_done(&self.standin, &mut self.driver, PATIENCE, async |sidecar| {
            let sidecar = if in_haste { sidecar.with_deadline(SHORT_DEADLINE) } else { sidecar.clone() };
            in_haste = false;
            subject.act(case.flow, &sidecar).await
        });
        done.await.map(|((), attempts)| attempts)
    }

    /// Everything the flow made is taken away again, through the driver.
    async fn undo(&mut self, flow: Flow, subject: &Subject) -> Result<(), String> {
        let Self { standin, driver } = self;
        if flow.needs_attachment() || flow == Flow::Publish {
            for node in &subject.nodes {
                until_done(standin, driver, PATIENCE, async |it| it.unpublish(&subject.volume, node).await)
                    .await
                    .map_err(|error| format!("undo: unpublish: {error}"))?;
            }
        }
        let snapshot = subject.made_snapshot.as_ref().map(|made| &made.snapshot_id);
        for id in [Some(&subject.snapshot), Some(&subject.backup), snapshot].into_iter().flatten() {
            if !id.is_empty() {
                until_done(standin, driver, PATIENCE, async |it| it.delete_snapshot(id).await)
                    .await
                    .map_err(|error| format!("undo: delete snapshot: {error}"))?;
            }
        }
        let volume = subject.made_volume.as_ref().map(|made| &made.volume_id);
        for id in [volume, Some(&subject.volume)].into_iter().flatten() {
            if !id.is_empty() {
                until_done(standin, driver, PATIENCE, async |it| it.delete(id).await)
                    .await
                    .map_err(|error| format!("undo: delete volume: {error}"))?;
            }
        }
        Ok(())
    }

    /// What is left; what is only on its way out gets a moment.
    async fn inventory_once_settled(&self) -> Vec<String> {
        self.standin.cloud(Cloud::clear_plans);
        for _ in 0..20 {
            if self.standin.cloud(|cloud| cloud.inventory()).is_empty() {
                return Vec::new();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.standin.cloud(|cloud| cloud.inventory())
    }
}
