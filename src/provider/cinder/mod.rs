//! Volumes of Cinder, attached to servers by Nova and to other hosts by Cinder itself.
//!
//! One file per noun: `volume` (make, remove, look), `attachment` and `host` (publish, unpublish), `snapshot`, `backup`,
//! `expansion`, `capacity`; `names`, `parameters` and `topology` are what classes and metadata say, `failure`
//! what refusals mean. There is no store: everything is found again by name, metadata and state.

mod attachment;
mod backup;
mod capacity;
mod expansion;
mod failure;
mod host;
mod lately;
mod leftover;
mod listing;
pub mod parameters;
mod precedence;
mod snapshot;
mod source;
mod volume;

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::initiator::Initiator;
use crate::model::{
    Capability, CephClient, Connection, NodeId, Page, PageRequest, StringMap, Volume, VolumeId, VolumeSpec,
    VolumeStatus,
};
use crate::openstack::cinder::{self, BackupSource, Cinder, SnapshotSource, VolumeSource};
use crate::openstack::client::{Client, Microversion};
use crate::openstack::notes::Notes;
use crate::openstack::nova::{Nova, ServerSource};
use crate::openstack::watch::Watch;
use crate::provider::clouds::Clouds;
use crate::provider::failure::Doubts;
use crate::provider::handle::{Uuid, VolumeHandle, server_of};
use crate::provider::names::Names;
use crate::provider::topology::Zones;
use crate::provider::{Capacity, Expand, Provider, Snapshots};
use async_trait::async_trait;
use host::known::{Hosts, Shapes, Turns};
use lately::AttachedLately;
use precedence::Precedence;
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
    /// Who attaches volumes.
    pub attach: Attach,
    /// Knows the keys of Ceph.
    pub ceph: Arc<dyn CephClients>,
}

/// Knows the users of Ceph clusters, as they are now.
#[async_trait]
pub trait CephClients: std::fmt::Debug + Send + Sync {
    /// Those that are configured.
    ///
    /// # Errors
    /// `Internal`: the configuration cannot be read.
    async fn all(&self) -> Result<Vec<CephClient>>;
}

#[async_trait]
impl CephClients for Vec<CephClient> {
    async fn all(&self) -> Result<Vec<CephClient>> {
        Ok(self.clone())
    }
}

/// Who attaches volumes to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attach {
    /// Nova to its servers, and Cinder to other hosts.
    #[default]
    Both,
    /// Nova only.
    Nova,
    /// Cinder only; there need be no Nova.
    Host,
}

/// A node as its id describes it.
enum NodeKind {
    Server(Uuid),
    Host(Box<Initiator>),
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
    shapes: Shapes,
    turns: Turns,
    doubts: Doubts,
    attached_lately: AttachedLately,
    precedence: Precedence,
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
            shapes: Shapes::default(),
            turns: Turns::default(),
            doubts: Doubts::default(),
            attached_lately: AttachedLately::default(),
            precedence: Precedence::default(),
            pools_are_hidden: AtomicBool::new(false),
        }
    }
}

/// Where Cinder volumes come from: one or several clouds.
pub struct CinderProvider {
    names: Names,
    zones: Zones,
    attach: Attach,
    ceph: Arc<dyn CephClients>,
    hosts: Hosts,
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
        let (attach, ceph) = (settings.attach, Arc::clone(&settings.ceph));
        Ok(Self { names, zones, attach, ceph, hosts: Hosts::default(), clouds })
    }

    /// What kind of node this is, if there is a way to attach volumes to it.
    fn kind_of(&self, node: &NodeId) -> Result<NodeKind> {
        if let Some(server) = server_of(node) {
            return match self.attach {
                Attach::Host => Err(Error::invalid(format!(
                    "node {node} is a server of Nova, and this controller runs with --attach host"
                ))),
                Attach::Both | Attach::Nova => Ok(NodeKind::Server(server)),
            };
        }
        let host = Initiator::unpack(node).map_err(|error| {
            error.as_kind(Kind::NotFound).during("there is no such node: it is neither the UUID of a server nor a host")
        })?;
        match self.attach {
            Attach::Nova => Err(Error::invalid(format!(
                "host {} is no server of Nova, and this controller runs with --attach nova",
                host.host
            ))),
            Attach::Both | Attach::Host => Ok(NodeKind::Host(Box::new(host))),
        }
    }

    async fn detach_from_all(&self, call: &Call, id: &VolumeId) -> Result<()> {
        if self.attach != Attach::Nova {
            self.detach_from_all_hosts(call, id).await?;
        }
        if self.attach != Attach::Host {
            self.detach_everywhere(call, id).await?;
        }
        Ok(())
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
        read_only: bool,
    ) -> Result<Connection> {
        match self.kind_of(node)? {
            // Nova knows no read-only attachment: the node sees to that.
            NodeKind::Server(server) => Box::pin(self.attach(call, id, &server, capability))
                .await
                .map_err(|error| error.during(format!("attach volume {id} to server {server}"))),
            NodeKind::Host(host) => Box::pin(self.attach_to_host(call, id, (node, &host), capability, read_only))
                .await
                .map_err(|error| error.during(format!("attach volume {id} to host {}", host.host))),
        }
    }

    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        let outcome = match node {
            None => Box::pin(self.detach_from_all(call, id)).await,
            Some(node) if server_of(node).is_some() => Box::pin(self.detach(call, id, node)).await,
            Some(node) => {
                let host = Initiator::unpack(node).ok();
                Box::pin(self.detach_from_host(call, id, node, host.as_ref())).await
            }
        };
        let from = node.map_or_else(|| "every node".to_owned(), |node| format!("node {node}"));
        outcome.map_err(|error| error.during(format!("detach volume {id} from {from}")))
    }

    async fn ready(&self, call: &Call) -> Result<()> {
        for cloud in self.clouds.all() {
            new_enough(call, "Cinder", cloud.cinder.client(), OLDEST_CINDER).await?;
            if self.attach == Attach::Host {
                new_enough(call, "Cinder", cloud.cinder.client(), cinder::COMPLETE_ATTACHMENT).await?;
            } else {
                // Every Nova that is alive attaches volumes; what it speaks is learned here, before the first attachment.
                cloud.nova.highest(call).await?;
            }
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
