//! Volumes: as they are wanted, and as they are.

use super::{
    Bytes, Capability, NodeId, Secrets, SizeRange, SnapshotId, StringMap, Topology, TopologyRequirement, VolumeId,
};
use serde::{Deserialize, Serialize};

/// What a new volume is filled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentSource {
    /// A snapshot or a backup.
    Snapshot(SnapshotId),
    /// Another volume.
    Volume(VolumeId),
}

/// What the orchestrator wants a volume to be.
#[derive(Debug, Clone)]
pub struct VolumeSpec {
    /// The name: the same name is the same volume.
    pub name: String,
    /// How large.
    pub size: SizeRange,
    /// Filled with what.
    pub source: Option<ContentSource>,
    /// Every way in which it will be used.
    pub capabilities: Vec<Capability>,
    /// Parameters of the StorageClass.
    pub parameters: StringMap,
    /// Parameters of the VolumeAttributesClass.
    pub mutable_parameters: StringMap,
    /// From where it must be reachable.
    pub topology: Option<TopologyRequirement>,
    /// Secrets of the class.
    pub secrets: Secrets,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its handle.
    pub id: VolumeId,
    /// Its size.
    pub size: Bytes,
    /// What it was filled with, when it was made by this request.
    pub source: Option<ContentSource>,
    /// From where it is reachable; empty for everywhere.
    pub topology: Vec<Topology>,
    /// What node RPCs should be told (`volume_context`).
    pub context: StringMap,
}

/// A volume, where it is published, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatus {
    /// The volume.
    pub volume: Volume,
    /// The nodes it is published on.
    pub published: Vec<NodeId>,
    /// What is wrong with it; empty when nothing is.
    pub health: Vec<Health>,
}

/// Something that is wrong with a volume (CSI `VolumeHealthEntry`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How bad.
    pub severity: Severity,
    /// A CamelCase word for machines, such as `DeviceGone`.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// How bad a [`Health`] problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Usable, not well.
    Degraded,
    /// Not usable from here.
    Inaccessible,
    /// Data is lost.
    DataLoss,
}
