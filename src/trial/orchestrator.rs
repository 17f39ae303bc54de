//! Single acts of an orchestrator, each entered in the ledger before it is done and reported afterwards.

use super::client::{Driver, Patience, error_of, is_passing};
use super::cost::Cost;
use super::ledger::{Entry, Ledger, Object};
use super::plan::Plan;
use super::proto;
use super::report::Report;
use super::step::Step;
use super::table::Sample;
use super::workload::Workload;
use crate::model::StringMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

/// What the user wants of every volume. Not `Debug`: it holds secrets.
#[derive(Clone)]
pub(super) struct Settings {
    /// The prefix of all names of this run.
    pub(super) run: String,
    /// The size of each volume.
    pub(super) size: u64,
    /// How it is used.
    pub(super) capability: proto::VolumeCapability,
    /// Of the StorageClass.
    pub(super) parameters: StringMap,
    /// Of the VolumeSnapshotClass.
    pub(super) snapshot_parameters: StringMap,
    /// Of the classes' secret.
    pub(super) secrets: StringMap,
    /// The directory of this run.
    pub(super) work_dir: PathBuf,
    /// Whether OpenStack calls can be told apart by step: only if nothing else happens meanwhile.
    pub(super) calls_by_step: bool,
}

impl Settings {
    /// Whether volumes are raw block devices.
    pub(super) fn is_block(&self) -> bool {
        matches!(self.capability.access_type, Some(proto::volume_capability::AccessType::Block(_)))
    }
}

/// Why a life did not go on.
#[derive(Debug)]
pub(super) enum Ended {
    /// A signal came.
    Stopped,
    /// A step failed; it has been reported.
    Failed,
}

/// Everything that a life needs. Shared by all lives of a run.
pub(super) struct Orchestrator {
    pub(super) driver: Driver,
    pub(super) plan: Plan,
    pub(super) settings: Settings,
    pub(super) patience: Patience,
    pub(super) workload: Box<dyn Workload>,
    pub(super) ledger: Ledger,
    pub(super) report: Report,
    pub(super) cost: Cost,
    pub(super) stop: CancellationToken,
    /// How many more volumes each node takes; none where it does not say.
    pub(super) rooms: Vec<Option<NodeRoom>>,
    /// Set when the driver has said that it makes no backups.
    pub(super) no_backups: AtomicBool,
}

/// How many volumes a node takes.
#[derive(Debug)]
pub(super) struct NodeRoom {
    limit: u32,
    free: Semaphore,
}

impl NodeRoom {
    /// Of a node that takes so many; none for no limit.
    pub(super) fn new(limit: i64) -> Option<Self> {
        let limit = u32::try_from(limit).ok().filter(|limit| *limit > 0)?;
        Some(Self { limit, free: Semaphore::new(usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS)) })
    }
}

/// The right to have some volumes on a node.
pub(super) struct Room<'a> {
    /// Which node.
    pub(super) node: usize,
    _permit: Option<SemaphorePermit<'a>>,
}

/// How a step is watched: its clock, and the count of OpenStack calls before it.
struct Watch {
    calls: Option<u64>,
    started: Instant,
}

impl Orchestrator {
    /// Does an RPC of a life, repeating it as a sidecar would, and reports it. `object` names what it is about, if that
    /// is known before the answer is.
    pub(super) async fn rpc<T, F>(
        &self,
        life: u32,
        step: Step,
        object: impl Fn(Option<&T>) -> String,
        send: impl Fn() -> F,
    ) -> Result<T, Ended>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        match self.try_rpc(life, step, object, |_| false, send).await? {
            Ok(answer) => Ok(answer),
            // Not with this notion of what is tolerable.
            Err(_) => Err(Ended::Failed),
        }
    }

    /// The same, but a refusal that is `tolerable` is given back and not reported.
    pub(super) async fn try_rpc<T, F>(
        &self,
        life: u32,
        step: Step,
        object: impl Fn(Option<&T>) -> String,
        tolerable: impl Fn(Code) -> bool,
        send: impl Fn() -> F,
    ) -> Result<Result<T, Status>, Ended>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let watch = self.watch().await?;
        let attempts = self.patience.persist(&self.stop, is_passing, send).await;
        match attempts.answer.map(Response::into_inner) {
            Ok(answer) => {
                let sample = self.sample(&watch, attempts.took, attempts.count).await;
                self.report.done(life, step, &object(Some(&answer)), sample);
                Ok(Ok(answer))
            }
            Err(_) if self.stop.is_cancelled() => Err(Ended::Stopped),
            Err(status) if tolerable(status.code()) => Ok(Err(status)),
            Err(status) => {
                let why = error_of(step.name(), &status);
                self.report.failed(life, step, &object(None), attempts.took, attempts.count, &why.to_string());
                Err(Ended::Failed)
            }
        }
    }

    /// Does what a workload does, and reports it.
    pub(super) async fn work<T>(
        &self,
        life: u32,
        step: Step,
        object: &str,
        work: impl Future<Output = crate::error::Result<T>>,
    ) -> Result<T, Ended> {
        let watch = self.watch().await?;
        let outcome = work.await;
        let took = watch.started.elapsed();
        match outcome {
            Ok(value) => {
                let sample = self.sample(&watch, took, 0).await;
                self.report.done(life, step, object, sample);
                Ok(value)
            }
            Err(error) => {
                self.report.failed(life, step, object, took, 0, &error.to_string());
                Err(Ended::Failed)
            }
        }
    }

    /// Removes what an entry stands for, as a step of a life.
    pub(super) async fn remove(&self, life: u32, step: Step, entry: Entry) -> Result<(), Ended> {
        let Some(object) = self.ledger.get(entry) else { return Ok(()) };
        let send = || async { self.send_removal(&object).await.map(Response::new) };
        self.rpc(life, step, |_| object.name(), send).await?;
        self.ledger.end(entry);
        Ok(())
    }

    /// Makes a directory for the orchestrator's part of a stage or publish.
    pub(super) async fn make_directory(&self, life: u32, path: PathBuf) -> Result<Entry, Ended> {
        let entry = self.ledger.begin(life, Object::Directory(path.clone()));
        match tokio::fs::create_dir(&path).await {
            Ok(()) => Ok(entry),
            Err(error) => {
                self.report.note(life, &format!("make directory {}: {error}", path.display()));
                Err(Ended::Failed)
            }
        }
    }

    /// Removes a directory of ours, which must be empty.
    pub(super) async fn remove_directory(&self, life: u32, entry: Entry) -> Result<(), Ended> {
        let Some(object) = self.ledger.get(entry) else { return Ok(()) };
        match self.send_removal(&object).await {
            Ok(()) => {
                self.ledger.end(entry);
                Ok(())
            }
            Err(status) => {
                let step = Step::RemoveDirectory;
                self.report.failed(life, step, &object.name(), Duration::ZERO, 1, status.message());
                Err(Ended::Failed)
            }
        }
    }

    /// Asks once for the removal of an object. Gone already is as good.
    pub(super) async fn send_removal(&self, object: &Object) -> Result<(), Status> {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        match object {
            Object::Directory(path) => match tokio::fs::remove_dir(path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Status::failed_precondition(format!("remove directory {}: {error}", path.display())))
                }
                _ => Ok(()),
            },
            Object::Volume { id, .. } => {
                let request = proto::DeleteVolumeRequest {
                    volume_id: id.clone().unwrap_or_default(),
                    secrets: self.settings.secrets.clone(),
                };
                self.driver.controller.clone().delete_volume(request).await.map(drop)
            }
            Object::Snapshot { id, .. } => {
                let request = proto::DeleteSnapshotRequest {
                    snapshot_id: id.clone().unwrap_or_default(),
                    secrets: self.settings.secrets.clone(),
                };
                self.driver.controller.clone().delete_snapshot(request).await.map(drop)
            }
            Object::Attachment { volume, node } => {
                let request = proto::ControllerUnpublishVolumeRequest {
                    volume_id: volume.clone(),
                    node_id: self.node(*node)?.info.node_id.clone(),
                    secrets: self.settings.secrets.clone(),
                };
                self.driver.controller.clone().controller_unpublish_volume(request).await.map(drop)
            }
            Object::Staging { volume, node, path } => {
                let request =
                    proto::NodeUnstageVolumeRequest { volume_id: volume.clone(), staging_target_path: text(path) };
                self.node(*node)?.rpcs.clone().node_unstage_volume(request).await.map(drop)
            }
            Object::Publication { volume, node, path } => {
                let request = proto::NodeUnpublishVolumeRequest { volume_id: volume.clone(), target_path: text(path) };
                self.node(*node)?.rpcs.clone().node_unpublish_volume(request).await.map(drop)
            }
        }
    }

    /// A node by its place.
    pub(super) fn node(&self, node: usize) -> Result<&super::client::NodeService, Status> {
        self.driver.nodes.get(node).ok_or_else(|| Status::internal(format!("there is no node {}", node + 1)))
    }

    /// Waits until a node has room for so many more volumes, as a scheduler would.
    pub(super) async fn room(&self, node: usize, volumes: u32) -> Result<Room<'_>, Ended> {
        let Some(room) = self.rooms.get(node).and_then(Option::as_ref) else {
            return Ok(Room { node, _permit: None });
        };
        tokio::select! {
            // The semaphore is never closed; were it, there would just be no limit.
            permit = room.free.acquire_many(volumes.min(room.limit)) => Ok(Room { node, _permit: permit.ok() }),
            () = self.stop.cancelled() => Err(Ended::Stopped),
        }
    }

    /// Whether the driver is still believed to make backups.
    pub(super) fn makes_backups(&self) -> bool {
        !self.no_backups.load(Ordering::Relaxed)
    }

    /// How many OpenStack calls there were so far. A page that cannot be read is said once, and counted no more.
    pub(super) async fn calls(&self) -> Option<u64> {
        match self.cost.calls().await {
            Ok(calls) => calls,
            Err(error) => {
                self.report.left_out("counting OpenStack calls", &error.to_string());
                None
            }
        }
    }

    async fn watch(&self) -> Result<Watch, Ended> {
        if self.stop.is_cancelled() {
            return Err(Ended::Stopped);
        }
        let calls = if self.settings.calls_by_step { self.calls().await } else { None };
        Ok(Watch { calls, started: Instant::now() })
    }

    async fn sample(&self, watch: &Watch, took: Duration, attempts: u32) -> Sample {
        let calls = match watch.calls {
            // A process that was started again counts from zero.
            Some(before) => self.calls().await.and_then(|now| now.checked_sub(before)),
            None => None,
        };
        Sample { took, attempts, calls }
    }
}
