//! Volumes of Cinder, attached to nodes by Nova.
//!
//! One file per noun: [`volume`] (make, remove, look), [`attachment`] (publish, unpublish), [`snapshot`], [`backup`],
//! [`expansion`], [`capacity`]; [`parameters`] is what classes say, [`failure`] what refusals mean. There is no store: everything is found again by name, metadata and state.

mod attachment;
mod backup;
mod capacity;
mod expansion;
mod failure;
mod leftover;
mod listing;
pub mod parameters;
mod snapshot;
mod source;
mod volume;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::{
    Capability, Connection, NodeId, Page, PageRequest, StringMap, Volume, VolumeId, VolumeSpec, VolumeStatus,
};
use crate::openstack::cinder::{self, BackupSource, Cinder, SnapshotSource, VolumeSource};
use crate::openstack::client::{Client, Microversion};
use crate::openstack::notes::Notes;
use crate::openstack::nova::{Nova, ServerSource};
use crate::openstack::watch::Watch;
use crate::provider::clouds::Clouds;
use crate::provider::failure::Doubts;
use crate::provider::handle::VolumeHandle;
use crate::provider::names::Names;
use crate::provider::topology::Zones;
use crate::provider::{Capacity, Expand, Provider, Snapshots};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The oldest Cinder that this provider works with: attachments are objects of their own (Ocata).
const OLDEST_CINDER: Microversion = cinder::ATTACHMENTS;

/// How the provider behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The driver's name; [`crate::provider::names::CINDER_CSI`] makes it a drop-in.
    pub driver: String,
    /// The cluster's name, by which it knows its own volumes.
    pub cluster: String,
    /// Whether a volume's zone says nothing about the nodes that can use it.
    pub ignore_volume_zone: bool,
}

/// The services of one cloud, and the waits on them.
struct Cloud {
    name: String,
    cinder: Cinder,
    nova: Nova,
    notes: Arc<Notes>,
    volumes: Watch<VolumeSource>,
    snapshots: Watch<SnapshotSource>,
    backups: Watch<BackupSource>,
    servers: Watch<ServerSource>,
    doubts: Doubts,
    pools_are_hidden: AtomicBool,
}

impl Cloud {
    fn new(name: String, cinder: Client, nova: Client) -> Self {
        let (cinder, nova) = (Cinder::new(cinder), Nova::new(nova));
        let notes = Arc::new(Notes::default());
        Self {
            name,
            volumes: Watch::new(VolumeSource::new(cinder.clone(), Arc::clone(&notes))),
            snapshots: Watch::new(SnapshotSource::new(cinder.clone())),
            backups: Watch::new(BackupSource::new(cinder.clone())),
            servers: Watch::new(ServerSource::new(nova.clone())),
            notes,
            cinder,
            nova,
            doubts: Doubts::default(),
            pools_are_hidden: AtomicBool::new(false),
        }
    }
}

/// Where Cinder volumes come from: one or several clouds.
pub struct CinderProvider {
    names: Names,
    zones: Zones,
    clouds: Clouds<Cloud>,
}

impl CinderProvider {
    /// A provider over these clouds: name (empty for the default one), Cinder, Nova.
    ///
    /// # Errors
    /// `InvalidArgument`: no cloud, two of one name, or one whose name handles cannot hold.
    pub fn new(settings: &Settings, clouds: impl IntoIterator<Item = (String, Client, Client)>) -> Result<Self> {
        let names = Names::new(&settings.driver, &settings.cluster);
        let zones = Zones { key: names.topology_key().to_owned(), ignore_volume_zone: settings.ignore_volume_zone };
        let clouds =
            Clouds::new(clouds.into_iter().map(|(name, cinder, nova)| (name.clone(), Cloud::new(name, cinder, nova))))?;
        Ok(Self { names, zones, clouds })
    }

    /// The volume of a handle, which must be one that can exist.
    fn existing(&self, id: &VolumeId) -> Result<(VolumeHandle, &Cloud)> {
        let handle = VolumeHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no volume {id}")))?;
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        Ok((handle, cloud))
    }
}

#[async_trait]
impl Provider for CinderProvider {
    async fn create_volume(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume> {
        Box::pin(self.create(call, spec)).await.map_err(|error| error.during(format!("create volume {}", spec.name)))
    }

    async fn delete_volume(&self, call: &Call, id: &VolumeId) -> Result<()> {
        Box::pin(self.delete(call, id)).await.map_err(|error| error.during(format!("delete volume {id}")))
    }

    async fn volume(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        self.show(call, id).await.map_err(|error| error.during(format!("look at volume {id}")))
    }

    async fn volumes(&self, call: &Call, page: &PageRequest) -> Result<Page<VolumeStatus>> {
        self.list_volumes(call, page).await.map_err(|error| error.during("list volumes"))
    }

    async fn validate(
        &self,
        call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>> {
        self.judge(call, id, capabilities, parameters)
            .await
            .map_err(|error| error.during(format!("look at volume {id}")))
    }

    async fn publish(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        _read_only: bool,
    ) -> Result<Connection> {
        // Nova knows no read-only attachment: the node sees to that.
        Box::pin(self.attach(call, id, node, capability))
            .await
            .map_err(|error| error.during(format!("attach volume {id} to server {node}")))
    }

    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        let outcome = match node {
            Some(node) => Box::pin(self.detach(call, id, node)).await,
            None => Box::pin(self.detach_everywhere(call, id)).await,
        };
        let from = node.map_or_else(|| "every server".to_owned(), |node| format!("server {node}"));
        outcome.map_err(|error| error.during(format!("detach volume {id} from {from}")))
    }

    async fn ready(&self, call: &Call) -> Result<()> {
        for cloud in self.clouds.all() {
            new_enough(call, "Cinder", cloud.cinder.client(), OLDEST_CINDER).await?;
            // Every Nova that is alive attaches volumes; what it speaks is learned here, before the first attachment.
            cloud.nova.highest(call).await?;
        }
        Ok(())
    }

    fn topology_key(&self) -> &str {
        self.names.topology_key()
    }

    fn expand(&self) -> Option<&dyn Expand> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn capacity(&self) -> Option<&dyn Capacity> {
        Some(self)
    }

    fn can_clone(&self) -> bool {
        true
    }
}

/// Without a certain microversion a service cannot be worked with, and no single call would say why.
async fn new_enough(call: &Call, service: &str, client: &Client, oldest: Microversion) -> Result<()> {
    let highest = client.highest(call).await?;
    if highest < oldest {
        return Err(Error::unsupported(format!(
            "this {service} speaks microversions up to {highest}, and the driver needs {oldest}: the cloud is too old"
        )));
    }
    Ok(())
}
