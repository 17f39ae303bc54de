//! Where volumes come from.
//!
//! A [`Provider`] is one storage service. It owns naming, waiting and idempotency; the typed API calls are below it, in
//! [`crate::openstack`]. The `csi` layer above only translates. What a provider can do beyond the basics it says by
//! returning an ability ([`Expand`], [`Snapshots`], …) instead of `None`; the CSI capabilities that the driver
//! advertises derive from that, so they cannot lie.
//!
//! # Rules for every method
//!
//! - It may be repeated after a crash at any point, by this process or another, and gives the same answer.
//! - Every wait is bounded by the [`Call`]. When the call is over, the work done so far stays and the next call
//!   resumes it by looking; nothing is undone because of a deadline.
//! - `csi::operation` already keeps two calls for the same object apart *within this process*; correctness may not
//!   rest on that, since another replica may work on the same object.

pub mod cinder;
pub(crate) mod clouds;
pub(crate) mod failure;
pub mod handle;
pub mod manila;
pub mod memory;
pub mod names;
pub(crate) mod parameters;
pub(crate) mod size;
pub mod topology;
pub(crate) mod walk;

use crate::call::Call;
use crate::error::Result;
use crate::model::{
    Bytes, Capability, Connection, NodeId, Page, PageRequest, SizeRange, Snapshot, SnapshotFilter, SnapshotId,
    SnapshotSpec, StringMap, Topology, Volume, VolumeId, VolumeSpec, VolumeStatus,
};
use async_trait::async_trait;
use std::time::Duration;

/// One storage service: Cinder, Manila, or a third party's.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Makes a volume, or finds the one that an earlier call made, and returns it when it is usable.
    ///
    /// # Errors
    /// `Conflict`: the name is taken by an incompatible volume. `OutOfRange`: the size cannot be had. `NotFound`: the
    /// source is gone. `InvalidArgument`: parameters, capabilities or topology that cannot work. `Exhausted`: quota,
    /// or no back end has room. `Deadline`: still being made; repeat.
    async fn create_volume(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume>;

    /// Removes a volume; one that is not there is success.
    ///
    /// # Errors
    /// `WrongState`: it is in use, or snapshots depend on it.
    async fn delete_volume(&self, call: &Call, id: &VolumeId) -> Result<()>;

    /// One volume, where it is published and how it is.
    ///
    /// # Errors
    /// `NotFound`.
    async fn volume(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus>;

    /// A page of all volumes that the credential sees.
    ///
    /// # Errors
    /// `StaleToken`: the token is not one of ours or no longer valid.
    async fn volumes(&self, call: &Call, page: &PageRequest) -> Result<Page<VolumeStatus>>;

    /// Whether this volume could be used in each of these ways; if not, says why.
    ///
    /// # Errors
    /// `NotFound`: no such volume.
    async fn validate(
        &self,
        call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>>;

    /// Makes the volume reachable from the node and says how the node gets at it. Repeating it gives the same answer.
    ///
    /// # Errors
    /// `NotFound`: volume or node. `WrongState`: published elsewhere and not shareable. `Conflict`: published here in
    /// another way. `Exhausted`: the node has no room for another volume.
    async fn publish(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection>;

    /// The same, with what else the orchestrator knows of the volume: what CreateVolume said of it, or whoever wrote its
    /// PersistentVolume. For providers whose volumes are not fully named by their ids.
    ///
    /// # Errors
    /// As [`Provider::publish`].
    async fn publish_known(
        &self,
        call: &Call,
        id: &VolumeId,
        _context: &StringMap,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection> {
        self.publish(call, id, node, capability, read_only).await
    }

    /// Takes the volume from the node, or from all nodes where none is named. Success where volume, node or attachment
    /// is not there (any more).
    ///
    /// # Errors
    /// As the service gives them.
    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()>;

    /// Logs in and finds out what the other methods need: called once at start, in the background, and repeated while
    /// the service is away.
    ///
    /// # Errors
    /// `Unavailable` or `Deadline`: the service is away, ask again. Anything else: the configuration is wrong; the message
    /// says what, and where it was read from.
    async fn ready(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// Growing volumes.
    fn expand(&self) -> Option<&dyn Expand> {
        None
    }

    /// Snapshots (and backups as snapshots).
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// How much is left.
    fn capacity(&self) -> Option<&dyn Capacity> {
        None
    }

    /// Whether volumes are in zones, and reachable from their own only. If so, [`Volume::topology`] says which, under
    /// the key that nodes use as well, [`zone_key`](crate::model::zone_key).
    fn has_zones(&self) -> bool {
        false
    }

    /// Whether volumes can be made of volumes.
    fn can_clone(&self) -> bool {
        false
    }

    /// Whether a volume can be published so that the node cannot write to it, whatever the node does.
    fn publishes_read_only(&self) -> bool {
        false
    }

    /// Whether the list of all volumes says where each is published.
    fn lists_published_nodes(&self) -> bool {
        true
    }

    /// Whether raw block volumes exist here; shares have none.
    fn has_block_volumes(&self) -> bool {
        true
    }
}

/// What growing a volume came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expanded {
    /// The size it has now.
    pub size: Bytes,
    /// Whether the node has to grow something as well (a file system, a map).
    pub node_step: bool,
}

/// The ability to grow volumes.
#[async_trait]
pub trait Expand: Send + Sync {
    /// Grows a volume, in use or not, and returns when the service shows the new size. One that is large enough already
    /// is success.
    ///
    /// # Errors
    /// `NotFound`; `OutOfRange`: larger than anything can be, or above the limit; `Exhausted`: quota.
    async fn expand_volume(
        &self,
        call: &Call,
        id: &VolumeId,
        size: SizeRange,
        capability: Option<&Capability>,
    ) -> Result<Expanded>;
}

/// How long a call waits for a snapshot or backup to become ready before it answers that it is not.
pub(crate) const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(2);

/// The ability to take snapshots.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Takes a snapshot, or finds the one that an earlier call took. Answers when it is ready, at the latest after
    /// about two seconds with `ready: false`; the orchestrator asks again.
    ///
    /// # Errors
    /// `NotFound`: the volume. `Conflict`: the name is taken by a snapshot of another volume. `Exhausted`: quota.
    async fn create_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<Snapshot>;

    /// Removes a snapshot; one that is not there is success.
    ///
    /// # Errors
    /// `WrongState`: something depends on it.
    async fn delete_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()>;

    /// A page of the snapshots that match. A filter that matches nothing gives an empty page.
    ///
    /// # Errors
    /// `StaleToken`.
    async fn snapshots(&self, call: &Call, filter: &SnapshotFilter, page: &PageRequest) -> Result<Page<Snapshot>>;

    /// One snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    async fn snapshot(&self, call: &Call, id: &SnapshotId) -> Result<Snapshot>;

    /// Whether snapshots say from where volumes made of them are reachable.
    fn have_topology(&self) -> bool {
        true
    }
}

/// How much more can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub available: Bytes,
    /// The largest single volume, where that is known.
    pub largest: Option<Bytes>,
    /// The smallest single volume, where that is known.
    pub smallest: Option<Bytes>,
}

/// The ability to say how much room is left.
#[async_trait]
pub trait Capacity: Send + Sync {
    /// What is left for volumes with these parameters in this place.
    ///
    /// # Errors
    /// As the service gives them.
    async fn room(&self, call: &Call, parameters: &StringMap, topology: Option<&Topology>) -> Result<Room>;
}
