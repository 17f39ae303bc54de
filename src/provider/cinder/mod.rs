//! Volumes of Cinder, attached to nodes by Nova.
//!
//! One file per noun: `volume` (make, remove, look), `attachment` (publish, unpublish), `snapshot`, `backup`,
//! `expansion`, `capacity`; `names`, `parameters` and `topology` are what classes and metadata say, `failure`
//! what refusals mean. There is no store: everything is found again by name, metadata and state.

mod attachment;
mod backup;
mod capacity;
mod expansion;
mod failure;
mod leftover;
mod listing;
pub mod names;
pub mod parameters;
mod snapshot;
mod source;
pub mod topology;
mod volume;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::{
    Capability, Connection, NodeId, Page, PageRequest, Secrets, StringMap, Volume, VolumeId, VolumeSpec, VolumeStatus,
};
use crate::openstack::cinder::{self, BackupSource, Cinder, SnapshotSource, VolumeNotes, VolumeSource};
use crate::openstack::client::{Client, Microversion};
use crate::openstack::nova::{Nova, ServerSource};
use crate::openstack::watch::Watch;
use crate::provider::handle::{VolumeHandle, check_cloud_name};
use crate::provider::{Capacity, Expand, Provider, Snapshots};
use async_trait::async_trait;
use failure::Doubts;
use names::Names;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use topology::Zones;

/// The oldest Cinder that this provider works with: attachments are objects of their own (Ocata).
const OLDEST_CINDER: Microversion = cinder::ATTACHMENTS;

/// How the provider behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The driver's name; [`names::CINDER_CSI`] makes it a drop-in.
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
    notes: Arc<VolumeNotes>,
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
        let notes = Arc::new(VolumeNotes::default());
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
    clouds: BTreeMap<String, Cloud>,
}

impl CinderProvider {
    /// A provider over these clouds: name (empty for the default one), Cinder, Nova.
    ///
    /// # Errors
    /// `InvalidArgument`: no cloud, two of one name, or one whose name handles cannot hold.
    pub fn new(settings: &Settings, clouds: impl IntoIterator<Item = (String, Client, Client)>) -> Result<Self> {
        let names = Names::new(&settings.driver, &settings.cluster);
        let zones = Zones { key: names.topology_key().to_owned(), ignore_volume_zone: settings.ignore_volume_zone };
        let mut by_name = BTreeMap::new();
        for (name, cinder, nova) in clouds {
            check_cloud_name(&name)?;
            if by_name.insert(name.clone(), Cloud::new(name.clone(), cinder, nova)).is_some() {
                return Err(Error::invalid(format!("two clouds are called {name:?}")));
            }
        }
        if by_name.is_empty() {
            return Err(Error::invalid("no cloud is configured"));
        }
        Ok(Self { names, zones, clouds: by_name })
    }

    /// The cloud that a class's secret names; without one, the default cloud.
    fn cloud_of_class(&self, secrets: &Secrets) -> Result<&Cloud> {
        let name = secrets.get(parameters::CLOUD_SECRET).map_or("", |secret| secret.expose_secret());
        self.cloud_named(name).ok_or_else(|| {
            Error::invalid(format!(
                "the secret of the class says cloud {name:?}, which is not configured; the clouds are {}",
                self.cloud_names()
            ))
        })
    }

    /// The cloud of a handle. A name that is not configured is no proof that the object does not exist.
    fn cloud(&self, name: &str) -> Result<&Cloud> {
        self.cloud_named(name).ok_or_else(|| {
            Error::wrong_state(format!(
                "the handle names cloud {name:?}, which is not configured; the clouds are {}: add its section to cloud.conf",
                self.cloud_names()
            ))
        })
    }

    /// A cloud by name. Where there is only one and it has a name, it is the default as well.
    fn cloud_named(&self, name: &str) -> Option<&Cloud> {
        self.clouds.get(name).or_else(|| match name {
            "" if self.clouds.len() == 1 => self.clouds.values().next(),
            _ => None,
        })
    }

    fn cloud_names(&self) -> String {
        self.clouds.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }

    /// The volume of a handle, which must be one that can exist.
    fn existing(&self, id: &VolumeId) -> Result<(VolumeHandle, &Cloud)> {
        let handle = VolumeHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no volume {id}")))?;
        let cloud = self.cloud(&handle.cloud)?;
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
        for cloud in self.clouds.values() {
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

/// A 404 is an answer, every other error is an error.
fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is(crate::error::Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
