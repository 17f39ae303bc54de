//! `fuxi-csi try`: acts as the orchestrator would, through the CSI sockets only, and leaves nothing behind.
//!
//! `plan` decides from the advertised capabilities what is tried, `life` is the story of one volume,
//! `orchestrator` its single acts, `ledger` and `undo` see to it that nothing stays. It uses no part of the driver
//! but the socket, so it can judge any CSI driver, and users can accept an installation with it.

mod client;
mod cost;
mod ledger;
mod life;
mod orchestrator;
mod pattern;
mod plan;
mod report;
mod step;
mod table;
mod undo;
mod workload;

#[cfg(test)]
mod tests;

use crate::cli::Try;
use crate::csi::proto;
use crate::error::{Error, Kind, Result};
use crate::model::StringMap;
use client::{Driver, Patience};
use cost::Cost;
use ledger::{Ledger, Object};
use orchestrator::{NodeRoom, Orchestrator, Settings};
use plan::{Plan, Wishes};
use report::Report;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use workload::{Machine, Workload};

/// Exit code: every volume passed, and nothing is left.
const PASSED: u8 = 0;
/// Exit code: at least one volume failed, or something is left behind.
const FAILED: u8 = 1;
/// Exit code: the driver cannot be reached (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// Exit code: stopped by a signal (128 + SIGINT).
const STOPPED: u8 = 130;

/// The entry of the ledger that belongs to no life.
const NO_LIFE: u32 = 0;

/// Runs `fuxi-csi try` and says how the process should end. Lines go to standard output.
///
/// When a second signal ends it early, a blocked access to a device may still be under way: end the process without
/// waiting for such threads.
pub async fn run(options: &Try) -> ExitCode {
    let signals = Signals::default();
    let watching = match signals.watch() {
        Ok(task) => task,
        Err(error) => {
            Report::new(Box::new(std::io::stderr()), 1, false).line(format!("fuxi-csi try: {error}"));
            return ExitCode::from(refused(&error));
        }
    };
    let outside = Outside {
        out: Box::new(std::io::stdout()),
        terminal: std::io::stdout().is_terminal() && std::io::stderr().is_terminal(),
        workload: Box::new(Machine { limit: options.timeout }),
        pauses: client::PAUSES.to_vec(),
    };
    let code = with(options, outside, &signals).await;
    watching.abort();
    ExitCode::from(code)
}

/// What differs between the command and its tests.
struct Outside {
    out: Box<dyn Write + Send>,
    /// Whether somebody watches a terminal.
    terminal: bool,
    workload: Box<dyn Workload>,
    /// Between repetitions of an RPC.
    pauses: Vec<Duration>,
}

/// The exit code of a run that could not begin.
fn refused(error: &Error) -> u8 {
    match error.kind() {
        Kind::Unavailable | Kind::Deadline => UNAVAILABLE,
        _ => FAILED,
    }
}

/// What signals ask for.
#[derive(Debug, Clone, Default)]
struct Signals {
    /// Stop starting, undo everything.
    stop: CancellationToken,
    /// End at once.
    abandon: CancellationToken,
}

impl Signals {
    fn watch(&self) -> Result<tokio::task::JoinHandle<()>> {
        let listen = |kind| signal(kind).map_err(|error| Error::internal("listen for signals").because(error));
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let signals = self.clone();
        Ok(tokio::spawn(async move {
            for token in [signals.stop, signals.abandon] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        }))
    }
}

/// The whole command; the exit code.
async fn with(options: &Try, outside: Outside, signals: &Signals) -> u8 {
    let report = Report::new(outside.out, options.volumes.get(), outside.terminal);
    let patience = Patience { rpc: options.timeout, step: options.patience, pauses: outside.pauses };
    let world = match prepare(options, report, patience, outside.workload, signals).await {
        Ok(world) => Arc::new(world),
        Err((report, error)) => {
            report.line(format!("fuxi-csi try: {error}"));
            return refused(&error);
        }
    };
    let lives = async {
        lead_all(&world, options.volumes.get(), options.parallel.get()).await;
        undo::undo(&world, NO_LIFE).await;
    };
    tokio::select! {
        () = lives => {}
        () = announce(&world, signals) => {}
    }
    let left: Vec<_> = world.ledger.all().iter().map(ToString::to_string).collect();
    let calls = if signals.abandon.is_cancelled() { None } else { world.calls().await };
    world.report.conclude(options.volumes.get(), calls, &left);
    if world.report.all_passed(options.volumes.get()) && left.is_empty() {
        PASSED
    } else if signals.stop.is_cancelled() {
        STOPPED
    } else {
        FAILED
    }
}

/// Says that a signal has been understood, and returns when the second one wants an end at once.
async fn announce(world: &Orchestrator, signals: &Signals) {
    signals.stop.cancelled().await;
    world.report.line("stopping: undoing what this run has made; once more ends at once and lists what is left");
    signals.abandon.cancelled().await;
}

/// Connects, plans, makes the directory of this run, and tells the user.
async fn prepare(
    options: &Try,
    report: Report,
    patience: Patience,
    workload: Box<dyn Workload>,
    signals: &Signals,
) -> Result<Orchestrator, (Report, Error)> {
    let found = async {
        let cost = Cost::new(options.metrics_urls.clone())?;
        let driver = Driver::find(&options.endpoint, &options.node_endpoints(), &patience, &signals.stop).await?;
        let wishes = Wishes { backup: options.backup(), nodes: driver.nodes.len() };
        let plan = Plan::new(&driver.advertised, wishes).map_err(Error::wrong_state)?;
        Ok((cost, settings(options, &driver)?, driver, plan))
    };
    let (cost, settings, driver, plan) = match found.await {
        Ok(found) => found,
        Err(error) => return Err((report, error)),
    };
    let rooms = driver.nodes.iter().map(|node| NodeRoom::new(node.info.max_volumes_per_node)).collect();
    let world = Orchestrator {
        rooms,
        driver,
        plan,
        settings,
        patience,
        workload,
        ledger: Ledger::default(),
        report,
        cost,
        stop: signals.stop.clone(),
        no_backups: AtomicBool::new(false),
    };
    let directory = world.settings.work_dir.clone();
    let entry = world.ledger.begin(NO_LIFE, Object::Directory(directory.clone()));
    if let Err(error) = tokio::fs::DirBuilder::new().mode(0o700).create(&directory).await {
        world.ledger.end(entry);
        let what = format!("make directory {}; choose another place with --work-dir", directory.display());
        return Err((world.report, Error::wrong_state(what).because(error)));
    }
    introduce(&world, options);
    Ok(world)
}

fn introduce(world: &Orchestrator, options: &Try) {
    let (driver, settings) = (&world.driver, &world.settings);
    world.report.line(format!("{} {} at {}", driver.name, driver.version, options.endpoint));
    for (number, node) in driver.nodes.iter().enumerate() {
        let topology = node.info.accessible_topology.iter().flat_map(|place| &place.segments);
        let place: Vec<_> = topology.map(|(key, value)| format!("{key}={value}")).collect();
        let limit = match node.info.max_volumes_per_node {
            0 => String::new(),
            limit => format!(", at most {limit} volumes"),
        };
        world.report.line(format!("node {}: {} [{}]{limit}", number + 1, node.info.node_id, place.join(", ")));
    }
    world.report.line(format!(
        "run {}: {} x {}, {} at once; everything it makes is named {}-*; work directory {}",
        settings.run,
        options.volumes,
        options.size,
        options.parallel,
        settings.run,
        settings.work_dir.display()
    ));
    for omission in &world.plan.omissions {
        world.report.left_out(omission.what, &omission.why);
    }
}

fn settings(options: &Try, driver: &Driver) -> Result<Settings> {
    use proto::volume_capability::access_mode::Mode;
    use proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
    let many_writers = proto::controller_service_capability::rpc::Type::SingleNodeMultiWriter;
    // What Kubernetes makes of ReadWriteOnce.
    let mode = if driver.advertised.controller.contains(&many_writers) {
        Mode::SingleNodeMultiWriter
    } else {
        Mode::SingleNodeWriter
    };
    let access_type = if options.block {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume { fs_type: options.fstype.clone().unwrap_or_default(), ..Default::default() })
    };
    let run = format!("try-{:08x}", fastrand::u32(..));
    let above = options.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    let above = std::path::absolute(&above)
        .map_err(|error| Error::invalid(format!("--work-dir {}", above.display())).because(error))?;
    let pairs = |pairs: &[crate::cli::KeyValue]| -> StringMap {
        pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
    };
    Ok(Settings {
        work_dir: above.join(format!("fuxi-{run}")),
        run,
        size: options.size.get(),
        capability: proto::VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        },
        parameters: pairs(&options.parameters),
        snapshot_parameters: pairs(&options.snapshot_parameters),
        secrets: options.secrets_file.as_deref().map(read_secrets).transpose()?.unwrap_or_default(),
        calls_by_step: options.volumes.get() == 1 || options.parallel.get() == 1,
    })
}

/// Reads a file of `KEY=VALUE` lines: secrets do not belong into arguments, which everybody on the machine sees.
fn read_secrets(path: &Path) -> Result<StringMap> {
    let context = || format!("--secrets-file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Error::invalid(context()).because(error))?;
    parse_secrets(&text).map_err(|error| error.during(context()))
}

fn parse_secrets(text: &str) -> Result<StringMap> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
            // The line is not shown: it may be the secret.
            _ => Err(Error::invalid(format!("line {} is not KEY=VALUE", number + 1))),
        })
        .collect()
}

/// Leads all lives, so many at once, until the last one has ended or a signal stops the starting.
async fn lead_all(world: &Arc<Orchestrator>, volumes: u32, parallel: u32) {
    let slots = Arc::new(Semaphore::new(usize::try_from(parallel).unwrap_or(Semaphore::MAX_PERMITS)));
    let mut lives = JoinSet::new();
    for number in 1..=volumes {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = world.stop.cancelled() => break,
        };
        let world = Arc::clone(world);
        lives.spawn(async move {
            life::lead(&world, number).await;
            drop(slot);
        });
    }
    while let Some(ended) = lives.join_next().await {
        if let Err(error) = ended {
            // Counted by its absence: it is neither passed nor failed, so the run is not all passed.
            world.report.line(format!("a life ended by itself, which is a bug of `try`: {error}"));
        }
    }
}
