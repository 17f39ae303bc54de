//! Volumes on this machine: stage, publish, expand, stats, health. Knows no OpenStack and no gRPC.
//!
//! [`Node`] is the façade. Behind it, [`stage`], [`unstage`], [`publish`], [`expand`], [`stats`] and [`health`] are one story each;
//! [`connector`] brings the device, [`filesystem`] makes and grows what is on it, [`mount`] mounts it, [`record`] remembers
//! it, and [`identity`] knows which machine this is. The truth is in sysfs and the mount table; the record only says what
//! they cannot: which volume, and how it came here.
//!
//! The `csi` layer lets one operation per volume in. Should two ever meet here nevertheless, both look before they act
//! and the worst is an error to one of them.

pub mod blocking;
pub mod connector;
pub mod device;
pub mod expand;
pub mod filesystem;
pub mod forgotten;
mod fuse;
pub mod health;
pub mod identity;
pub mod keychain;
pub mod mount;
pub mod publish;
pub mod record;
pub mod stage;
pub mod stats;
pub mod unstage;

#[cfg(test)]
mod tests;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::model::{
    AccessMode, Bytes, Capability, Connection, Health, KIND_NOVA, NodeId, Secrets, SizeRange, StringMap, Topology,
    VolumeId,
};
use connector::{Connector, Connectors, Link};
use device::{Device, DeviceNumber, Host};
use filesystem::Filesystems;
use identity::Identity;
use keychain::Keychain;
use mount::Mounter;
use mount::table::MountTable;
use record::{Record, Records};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// What a node is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// Runs programs.
    pub exec: Arc<dyn Exec>,
    /// Mounts.
    pub mounter: Arc<dyn Mounter>,
    /// Bring devices and shares.
    pub connectors: Connectors,
    /// The file systems that it knows.
    pub filesystems: Filesystems,
    /// Knows which machine this is.
    pub identity: Identity,
    /// Opens what the controller sealed to this node.
    pub keychain: Keychain,
    /// Where the kernel's files are.
    pub host: Host,
    /// The driver's own directory on the host, for its records.
    pub plugin_dir: PathBuf,
    /// The file system of volumes that ask for none.
    pub default_fstype: String,
}

/// The node's side of the driver.
#[derive(Debug)]
pub struct Node {
    parts: NodeParts,
    records: Records,
}

impl Node {
    /// A node made of these parts.
    ///
    /// # Errors
    /// `InvalidArgument`: the default file system is none that it knows.
    pub fn new(parts: NodeParts) -> Result<Self> {
        parts.filesystems.get(&parts.default_fstype)?;
        let records = Records::new(parts.plugin_dir.join("volumes"));
        Ok(Self { parts, records })
    }

    /// Makes the volume ready on this machine: connected, proven, formatted if blank, grown, mounted.
    ///
    /// # Errors
    /// `WrongState`: the device is not the volume, or holds what must not be overwritten. `Conflict`: staged in another
    /// way. `Unavailable`: the device did not appear; repeat. `InvalidArgument`: an unknown file system or option.
    pub async fn stage(&self, call: &Call, request: &StageRequest) -> Result<()> {
        Box::pin(stage::stage(self, call, request)).await
    }

    /// The opposite; success for what is not there.
    ///
    /// # Errors
    /// `Busy`/`Internal`: it could not be unmounted or disconnected.
    pub async fn unstage(&self, call: &Call, volume: &VolumeId, staging_path: &Path) -> Result<()> {
        let result = Box::pin(unstage::unstage(self, call, volume, staging_path)).await;
        result.map_err(|error| error.during(format!("unstage volume {volume}")))
    }

    /// Shows the staged volume to one workload.
    ///
    /// # Errors
    /// `WrongState`: it is not staged. `Conflict`: published there in another way.
    pub async fn publish(&self, call: &Call, request: &PublishRequest) -> Result<()> {
        let result = Box::pin(publish::publish(self, call, request)).await;
        result.map_err(|error| error.during(format!("publish volume {}", request.volume)))
    }

    /// The opposite; success for what is not there.
    ///
    /// # Errors
    /// `Busy`/`Internal`: it could not be unmounted.
    pub async fn unpublish(&self, call: &Call, volume: &VolumeId, target_path: &Path) -> Result<()> {
        let result = Box::pin(publish::unpublish(self, call, volume, target_path)).await;
        result.map_err(|error| error.during(format!("unpublish volume {volume}")))
    }

    /// Grows what is on the volume to the volume's size and says what was measured.
    ///
    /// # Errors
    /// `NotFound`: nothing of that volume is there. `Unavailable`: the device is (still) smaller than required; repeat.
    /// `WrongState`: the file system cannot grow as it is mounted.
    pub async fn expand(
        &self,
        call: &Call,
        volume: &VolumeId,
        volume_path: &Path,
        staging_path: Option<&Path>,
        size: SizeRange,
    ) -> Result<Bytes> {
        let result = Box::pin(expand::expand(self, call, volume, volume_path, staging_path, size)).await;
        result.map_err(|error| error.during(format!("expand volume {volume}")))
    }

    /// How full it is.
    ///
    /// # Errors
    /// `NotFound`: the volume is not at that path.
    pub async fn stats(&self, call: &Call, volume: &VolumeId, volume_path: &Path) -> Result<Stats> {
        let result = stats::stats(self, call, volume, volume_path).await;
        result.map_err(|error| error.during(format!("statistics of volume {volume}")))
    }

    /// What is wrong with it on this node.
    ///
    /// # Errors
    /// `NotFound`: the volume is not here.
    pub async fn health(
        &self,
        call: &Call,
        volume: &VolumeId,
        publish_path: Option<&Path>,
        staging_path: Option<&Path>,
    ) -> Result<Vec<Health>> {
        let result = Box::pin(health::health(self, call, volume, publish_path, staging_path)).await;
        result.map_err(|error| error.during(format!("health of volume {volume}")))
    }

    /// Removes the records of volumes that left this machine without being unstaged: by a reboot, say, after which they
    /// were detached by force. For the start of the node, when nothing else is going on. Returns how many those were.
    ///
    /// # Errors
    /// `Internal`: the records cannot be read. `Deadline`: the call is over; what was found until then is removed.
    pub async fn forget_what_is_gone(&self, call: &Call) -> Result<usize> {
        forgotten::forget(self, call).await
    }

    /// What this node is.
    ///
    /// # Errors
    /// `Unavailable`: no source knows the server's id.
    pub async fn info(&self, call: &Call) -> Result<NodeInfo> {
        let records = self.records.all(call).await?;
        self.parts.identity.info(call, &self.parts.host, &records).await
    }

    /// The connector of a volume that is here, and the link to it. A volume without a record was staged by a driver before
    /// this one (cinder-csi), which knows disks of the hypervisor only.
    fn link(&self, volume: &VolumeId, record: Option<&Record>) -> Result<(Arc<dyn Connector>, Link)> {
        let connection = record.map_or_else(
            || Connection {
                kind: KIND_NOVA.to_owned(),
                data: serde_json::Value::Object(serde_json::Map::new()),
                size: None,
                read_only: false,
                sealed: None,
            },
            |record| record.connection.clone(),
        );
        let connector = self.parts.connectors.get(&connection.kind)?;
        // What is connected already can mostly do without them, and must come off again in any case.
        let secrets = self.parts.keychain.open(volume, &connection).unwrap_or_else(|error| {
            tracing::warn!(%volume, %error, "its secrets cannot be opened");
            Secrets::new()
        });
        let link = Link {
            volume: volume.clone(),
            connection,
            secrets,
            mode: record.map_or(AccessMode::SingleNodeWriter, |record| record.mode),
            device: record.and_then(|record| record.device.clone()),
        };
        Ok((connector, link))
    }

    /// Where this device's node itself is mounted, as raw block volumes are published.
    async fn places_of_device_node(&self, call: &Call, table: &MountTable, device: &Device) -> Result<Vec<PathBuf>> {
        let mut places = Vec::new();
        for entry in table.entries().iter().filter(|entry| entry.root.file_name() == device.path.file_name()) {
            if self.parts.mounter.block_device(call, &entry.mount_point).await? == Some(device.number) {
                places.push(entry.mount_point.clone());
            }
        }
        Ok(places)
    }

    /// The block device of that number, if there is one.
    async fn numbered(&self, call: &Call, number: DeviceNumber) -> Result<Option<Device>> {
        let host = self.parts.host.clone();
        blocking::run(call, "read sysfs", move || {
            host.numbered(number)
                .map_err(|error| Error::internal(format!("read device {number} in sysfs")).because(error))
        })
        .await
    }
}
