//! Volumes on this machine: stage, publish, expand, stats, health. Knows no OpenStack and no gRPC.

pub mod connector;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::{Bytes, Capability, Connection, Health, NodeId, Secrets, SizeRange, StringMap, Topology, VolumeId};
use std::path::{Path, PathBuf};

/// What to stage, and where.
#[derive(Debug, Clone)]
pub struct StageRequest {
    /// The volume.
    pub volume: VolumeId,
    /// How to get at it.
    pub connection: Connection,
    /// Where the orchestrator wants it staged.
    pub staging_path: PathBuf,
    /// As what.
    pub capability: Capability,
    /// The context that the controller gave the volume at its creation.
    pub volume_context: StringMap,
    /// Secrets of the class.
    pub secrets: Secrets,
}

/// What to publish, and where.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where it was staged.
    pub staging_path: PathBuf,
    /// Where the workload expects it.
    pub target_path: PathBuf,
    /// As what.
    pub capability: Capability,
    /// Whether the workload may only read.
    pub read_only: bool,
    /// The context that the controller gave the volume at its creation.
    pub volume_context: StringMap,
}

/// What this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// How many volumes it takes; none for the orchestrator's default. Never zero by accident.
    pub limit: Option<std::num::NonZeroU32>,
    /// Where it is.
    pub topology: Topology,
}

/// How full a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of how much.
    pub total: u64,
    /// Still there for unprivileged users.
    pub available: u64,
    /// Gone.
    pub used: u64,
}

/// The statistics of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes; of a raw block volume the total only.
    pub bytes: Usage,
    /// Inodes, where the file system counts them.
    pub inodes: Option<Usage>,
}

/// The node's side of the driver.
pub struct Node {}

impl Node {
    /// Makes the volume ready on this machine: connected, proven, formatted if blank, grown, mounted.
    ///
    /// # Errors
    /// `WrongState`: the device is not the volume, or holds what must not be overwritten.
    pub async fn stage(&self, _call: &Call, _request: &StageRequest) -> Result<()> {
        Err(Error::internal("not there yet"))
    }

    /// The opposite; success for what is not there.
    ///
    /// # Errors
    /// `Busy`/`Internal`: it could not be unmounted or disconnected.
    pub async fn unstage(&self, _call: &Call, _volume: &VolumeId, _staging_path: &Path) -> Result<()> {
        Err(Error::internal("not there yet"))
    }

    /// Shows the staged volume to one workload.
    ///
    /// # Errors
    /// `WrongState`: it is not staged. `Conflict`: published there in another way.
    pub async fn publish(&self, _call: &Call, _request: &PublishRequest) -> Result<()> {
        Err(Error::internal("not there yet"))
    }

    /// The opposite; success for what is not there.
    ///
    /// # Errors
    /// `Busy`/`Internal`: it could not be unmounted.
    pub async fn unpublish(&self, _call: &Call, _volume: &VolumeId, _target_path: &Path) -> Result<()> {
        Err(Error::internal("not there yet"))
    }

    /// Grows what is on the volume to the volume's size and says what was measured.
    ///
    /// # Errors
    /// `NotFound`: nothing of that volume is there. `OutOfRange`: the device is smaller than required.
    pub async fn expand(
        &self,
        _call: &Call,
        _volume: &VolumeId,
        _volume_path: &Path,
        _staging_path: Option<&Path>,
        _size: SizeRange,
    ) -> Result<Bytes> {
        Err(Error::internal("not there yet"))
    }

    /// How full it is.
    ///
    /// # Errors
    /// `NotFound`: the volume is not at that path.
    pub async fn stats(&self, _call: &Call, _volume: &VolumeId, _volume_path: &Path) -> Result<Stats> {
        Err(Error::internal("not there yet"))
    }

    /// What is wrong with it on this node.
    ///
    /// # Errors
    /// `NotFound`: the volume is not here.
    pub async fn health(
        &self,
        _call: &Call,
        _volume: &VolumeId,
        _publish_path: Option<&Path>,
        _staging_path: Option<&Path>,
    ) -> Result<Vec<Health>> {
        Err(Error::internal("not there yet"))
    }

    /// What this node is.
    ///
    /// # Errors
    /// `Unavailable`: no source knows the server's id.
    pub async fn info(&self, _call: &Call) -> Result<NodeInfo> {
        Err(Error::internal("not there yet"))
    }
}
