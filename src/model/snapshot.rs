//! Snapshots and backups: as they are wanted, and as they are.

use super::{Bytes, Secrets, SnapshotId, StringMap, Timestamp, Topology, TopologyRequirement, VolumeId};

/// What the orchestrator wants a snapshot to be.
#[derive(Debug, Clone)]
pub struct SnapshotSpec {
    /// The name: the same name is the same snapshot.
    pub name: String,
    /// Of which volume.
    pub source: VolumeId,
    /// Parameters of the VolumeSnapshotClass.
    pub parameters: StringMap,
    /// From where volumes made of it must be reachable.
    pub topology: Option<TopologyRequirement>,
    /// Secrets of the class.
    pub secrets: Secrets,
}

/// A snapshot or a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its handle.
    pub id: SnapshotId,
    /// Of which volume.
    pub source: VolumeId,
    /// The size that a volume made of it has at least.
    pub size: Bytes,
    /// When it was taken.
    pub created: Timestamp,
    /// Whether a volume can be made of it now.
    pub ready: bool,
    /// From where volumes made of it are reachable; empty for everywhere.
    pub topology: Vec<Topology>,
}

/// Which snapshots are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFilter {
    /// Only this one.
    pub id: Option<SnapshotId>,
    /// Only those of this volume.
    pub source: Option<VolumeId>,
}
