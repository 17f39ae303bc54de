//! Shares of Manila, opened to one node at a time.
//!
//! One file per noun: `share` (make, remove), `access` (publish, unpublish), `client` (who a node is to Manila),
//! `export` (from where a share is mounted), `snapshot`, `backup`, `expansion`, `listing`, `capacity`; [`parameters`] is what
//! classes say, `failure` what refusals mean. What manila-csi has and we would not need is in `alias` (handles that are
//! no ids), `account` (secrets with credentials) and `runtime_config`. There is no store: everything is found again by name, metadata and state.

mod access;
mod account;
mod alias;
mod backup;
mod capacity;
mod client;
mod expansion;
mod export;
mod failure;
mod listing;
pub mod parameters;
mod runtime_config;
mod share;
mod snapshot;

use crate::call::Call;
use crate::error::Result;
use crate::model::{
    Capability, Connection, NodeId, Page, PageRequest, StringMap, Volume, VolumeId, VolumeSpec, VolumeStatus,
};
use crate::openstack::client::Client;
use crate::openstack::manila::{self, Backup, Manila, ObjectSource, Protocol, RuleSource, Share, Snapshot};
use crate::openstack::notes::Notes;
use crate::openstack::watch::{FirstLook, Watch};
use crate::provider::clouds::Clouds;
use crate::provider::failure::Doubts;
use crate::provider::names::Names;
use crate::provider::topology::Zones;
use crate::provider::{Capacity, Expand, Provider, Snapshots};
use alias::Turns;
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Manila's changes go through a queue, a scheduler or a driver that asks its storage: none of them is over before this,
/// on no back end that was looked at.
const FIRST_LOOK: FirstLook = FirstLook { guess: Duration::from_millis(250), never_before: Duration::from_millis(250) };

/// The same for what the storage has to copy, make or clear away, which mostly takes longer.
const FIRST_LOOK_AT_MADE: FirstLook =
    FirstLook { guess: Duration::from_millis(500), never_before: Duration::from_millis(250) };

/// How the provider behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The driver's name; one that ends in [`crate::model::MANILA_CSI`] makes it a drop-in.
    pub driver: String,
    /// The cluster's name, by which it knows its own shares.
    pub cluster: String,
    /// The runtime config of manila-csi, if there is one.
    pub runtime_config: Option<PathBuf>,
}

/// The service of one cloud, and the waits on it.
struct Cloud {
    name: String,
    manila: Manila,
    /// What is known about objects of each kind: ids of shares and snapshots never meet.
    notes: Arc<Notes>,
    shares: Watch<ObjectSource<Share>>,
    /// The same for those who wait for nothing.
    shares_now: Watch<ObjectSource<Share>>,
    snapshots: Watch<ObjectSource<Snapshot>>,
    backups: Watch<ObjectSource<Backup>>,
    rules: Watch<RuleSource>,
    doubts: Doubts,
    turns: Turns,
}

impl Cloud {
    fn new(name: String, manila: Client) -> Self {
        let manila = Manila::new(manila);
        let notes = Arc::new(Notes::default());
        Self {
            name,
            shares: Watch::new(ObjectSource::new(manila.clone(), Arc::clone(&notes))),
            shares_now: Watch::at_once(ObjectSource::new(manila.clone(), Arc::clone(&notes))),
            snapshots: Watch::new(ObjectSource::new(manila.clone(), Arc::clone(&notes))),
            backups: Watch::new(ObjectSource::new(manila.clone(), Arc::clone(&notes))),
            rules: Watch::new(RuleSource::new(manila.clone())),
            notes,
            manila,
            doubts: Doubts::default(),
            turns: Turns::default(),
        }
    }
}

/// Where Manila shares come from: one or several clouds.
pub struct ManilaProvider {
    names: Names,
    zones: Zones,
    /// The protocol of classes that name none.
    protocol: Protocol,
    runtime_config: Option<PathBuf>,
    clouds: Clouds<Cloud>,
}

impl ManilaProvider {
    /// A provider over these clouds: name (empty for the default one) and Manila.
    ///
    /// # Errors
    /// `InvalidArgument`: no cloud, two of one name, or one whose name handles cannot hold.
    pub fn new(settings: &Settings, clouds: impl IntoIterator<Item = (String, Client)>) -> Result<Self> {
        let names = Names::new(&settings.driver, &settings.cluster);
        // A share is reached over the network, from every zone.
        let zones = Zones { key: names.topology_key().to_owned(), ignore_volume_zone: true };
        let clouds = Clouds::new(clouds.into_iter().map(|(name, manila)| (name.clone(), Cloud::new(name, manila))))?;
        let protocol = default_protocol(&settings.driver);
        Ok(Self { names, zones, protocol, runtime_config: settings.runtime_config.clone(), clouds })
    }
}

/// manila-csi has one driver per protocol, with the protocol before its name.
fn default_protocol(driver: &str) -> Protocol {
    if driver.starts_with("cephfs.") { Protocol::Cephfs } else { Protocol::Nfs }
}

#[async_trait]
impl Provider for ManilaProvider {
    async fn create_volume(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume> {
        Box::pin(self.create(call, spec)).await.map_err(|error| error.during(format!("create share {}", spec.name)))
    }

    async fn delete_volume(&self, call: &Call, id: &VolumeId) -> Result<()> {
        Box::pin(self.delete(call, id)).await.map_err(|error| error.during(format!("delete share {id}")))
    }

    async fn volume(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        self.show(call, id).await.map_err(|error| error.during(format!("look at share {id}")))
    }

    async fn volumes(&self, call: &Call, page: &PageRequest) -> Result<Page<VolumeStatus>> {
        self.list_shares(call, page).await.map_err(|error| error.during("list shares"))
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
            .map_err(|error| error.during(format!("look at share {id}")))
    }

    async fn publish(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection> {
        self.publish_known(call, id, &StringMap::new(), node, capability, read_only).await
    }

    async fn publish_known(
        &self,
        call: &Call,
        id: &VolumeId,
        context: &StringMap,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection> {
        let read_only = read_only || capability.mode.is_read_only();
        Box::pin(self.open_to(call, id, context, node, read_only))
            .await
            .map_err(|error| error.during(format!("open share {id} to a node")))
    }

    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        Box::pin(self.close_to(call, id, node))
            .await
            .map_err(|error| error.during(format!("close share {id} to a node")))
    }

    async fn ready(&self, call: &Call) -> Result<()> {
        for cloud in self.clouds.all() {
            cloud.manila.require(call, manila::LOWEST, "the driver").await?;
        }
        Ok(())
    }

    fn has_zones(&self) -> bool {
        true
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

    fn publishes_read_only(&self) -> bool {
        true
    }

    fn lists_published_nodes(&self) -> bool {
        // Manila lists the rules of one share at a time.
        false
    }

    fn has_block_volumes(&self) -> bool {
        false
    }
}
