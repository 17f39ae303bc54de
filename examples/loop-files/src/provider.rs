//! Where volumes come from: files in the [`Store`].
//!
//! A volume's id is made of its name, so a call that is repeated finds what the one before made.

use crate::connector::KIND;
use crate::shelf::{failed, id_of, is_id};
use crate::sparse;
use crate::store::Store;
use async_trait::async_trait;
use fuxi_csi::app::Abilities;
use fuxi_csi::call::Call;
use fuxi_csi::error::{Error, Kind, Result};
use fuxi_csi::initiator::Initiator;
use fuxi_csi::model::{
    self, Bytes, Capability, Connection, ContentSource, NodeId, Page, PageRequest, SizeRange, Snapshot, SnapshotFilter,
    SnapshotId, SnapshotSpec, StringMap, Timestamp, Topology, VolumeId, VolumeSpec, VolumeStatus,
};
use fuxi_csi::provider::{Capacity, Expand, Expanded, Provider, Room, Snapshots};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// What this provider can do. Nodes, which have no provider, say this; the controller is held to it.
pub(crate) const ABILITIES: Abilities = Abilities {
    expand: true,
    snapshots: true,
    snapshot_topology: false,
    capacity: true,
    clone: true,
    ..Abilities::BASIC
};

/// Volumes as files.
#[derive(Debug)]
pub(crate) struct LoopFiles {
    store: Store,
}

/// What is known of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Volume {
    name: String,
    size: Bytes,
    source: Option<ContentSource>,
    /// Whether several nodes may have it.
    shared: bool,
    published: BTreeMap<NodeId, Capability>,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Taken {
    name: String,
    source: VolumeId,
    size: Bytes,
    created: Timestamp,
}

impl LoopFiles {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Volume {
    /// A volume as the orchestrator sees it: reachable from everywhere.
    fn shown(&self, id: &str) -> Result<model::Volume> {
        Ok(model::Volume {
            id: id.parse()?,
            size: self.size,
            source: self.source.clone(),
            topology: Vec::new(),
            context: StringMap::new(),
        })
    }

    fn status(&self, id: &str) -> Result<VolumeStatus> {
        let published = self.published.keys().cloned().collect();
        Ok(VolumeStatus { volume: self.shown(id)?, published, health: Vec::new() })
    }

    /// A file that somebody writes to while it is copied gives a copy that never was.
    fn refuse_if_in_use(&self, id: &str) -> Result<()> {
        match self.published.keys().next() {
            Some(node) => {
                Err(Error::wrong_state(format!("volume {id} is used on node {node}: files are copied only at rest")))
            }
            None => Ok(()),
        }
    }
}

impl Taken {
    fn shown(&self, id: &str) -> Result<Snapshot> {
        Ok(Snapshot {
            id: id.parse()?,
            source: self.source.clone(),
            size: self.size,
            created: self.created,
            ready: true,
            topology: Vec::new(),
        })
    }
}

/// Classes have no parameters here; one that somebody wrote is a mistake that should show.
fn refuse_parameters(parameters: &StringMap) -> Result<()> {
    match parameters.keys().next() {
        Some(key) => Err(Error::invalid(format!("parameter {key}: this driver has no parameters"))),
        None => Ok(()),
    }
}

fn is_shared(capabilities: &[Capability]) -> bool {
    capabilities.iter().any(|capability| capability.mode.is_multi_node())
}

fn gib(count: u64) -> Result<Bytes> {
    Bytes::from_gib(count)
        .filter(|size| i64::try_from(size.get()).is_ok())
        .ok_or_else(|| Error::new(Kind::OutOfRange, format!("{count} GiB is more than a file can have")))
}

/// How much the file system of the volumes has left.
fn left(directory: &Path) -> Result<Bytes> {
    let room = statvfs(directory).map_err(|error| failed("measure", directory, error.into()))?;
    Ok(Bytes::new(room.blocks_available().saturating_mul(room.fragment_size())))
}

/// Makes room for so many bytes more, or says that there is none. Files are sparse: this is a promise, not a reservation.
fn refuse_if_full(store: &Store, more: Bytes) -> Result<()> {
    let left = left(store.directory())?;
    if more > left {
        return Err(Error::new(
            Kind::Exhausted,
            format!("{}: {more} are asked for, and {left} are left", store.directory().display()),
        ));
    }
    Ok(())
}

/// Sets a file's length, durably; makes the file if it is not there.
fn set_length(path: &Path, size: Bytes) -> Result<()> {
    let write = || {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.set_len(size.get())?;
        file.sync_all()
    };
    write().map_err(|error| failed("make", path, error))
}

/// The page of a list of ids in order. The token is the last id before, so that it stays good when that one is removed.
fn page<T>(
    ids: Vec<String>,
    request: &PageRequest,
    mut shown: impl FnMut(&str) -> Result<Option<T>>,
) -> Result<Page<T>> {
    let after = request.token.as_deref().unwrap_or_default();
    if !after.is_empty() && !is_id(after) {
        return Err(Error::new(Kind::StaleToken, format!("starting_token {after:?} is not one of ours")));
    }
    let most = request.most.map_or(usize::MAX, |most| usize::try_from(most.get()).unwrap_or(usize::MAX));
    let mut items = Vec::new();
    let mut last = None;
    for id in ids.into_iter().filter(|id| id.as_str() > after) {
        let Some(item) = shown(&id)? else { continue };
        if items.len() == most {
            return Ok(Page { items, next: last });
        }
        items.push(item);
        last = Some(id);
    }
    Ok(Page { items, next: None })
}

#[async_trait]
impl Provider for LoopFiles {
    async fn create_volume(&self, call: &Call, spec: &VolumeSpec) -> Result<model::Volume> {
        refuse_parameters(&spec.parameters)?;
        refuse_parameters(&spec.mutable_parameters)?;
        let spec = spec.clone();
        self.store.change(call, "make a volume", move |store| create(store, &spec)).await
    }

    async fn delete_volume(&self, call: &Call, id: &VolumeId) -> Result<()> {
        let id = id.to_string();
        let remove = move |store: &Store| {
            if let Some(volume) = store.volumes.find::<Volume>(&id)? {
                if let Some(node) = volume.published.keys().next() {
                    return Err(Error::wrong_state(format!("volume {id} is published on node {node}")));
                }
                store.volumes.remove(&id)?;
            }
            Ok(())
        };
        self.store.change(call, "remove a volume", remove).await
    }

    async fn volume(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        let id = id.to_string();
        self.store.read(call, "read a volume", move |store| store.volumes.get::<Volume>(&id)?.status(&id)).await
    }

    async fn volumes(&self, call: &Call, request: &PageRequest) -> Result<Page<VolumeStatus>> {
        let request = request.clone();
        let list = move |store: &Store| {
            page(store.volumes.ids()?, &request, |id| {
                // One that was removed meanwhile is none.
                store.volumes.find::<Volume>(id)?.map(|volume| volume.status(id)).transpose()
            })
        };
        self.store.read(call, "list volumes", list).await
    }

    async fn validate(
        &self,
        call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>> {
        let (id, wants_shared) = (id.to_string(), is_shared(capabilities));
        let volume = self.store.read(call, "read a volume", move |store| store.volumes.get::<Volume>(&id)).await?;
        Ok(if wants_shared && !volume.shared {
            Err("it was not made for several nodes".to_owned())
        } else {
            refuse_parameters(parameters).map_err(|error| error.to_string())
        })
    }

    async fn publish(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        _read_only: bool,
    ) -> Result<Connection> {
        // The id of a node that makes its connections itself tells what the node is; of anything else there is no node.
        Initiator::unpack(node).map_err(|error| error.as_kind(Kind::NotFound))?;
        let (id, node, capability) = (id.to_string(), node.clone(), capability.clone());
        self.store.change(call, "publish a volume", move |store| publish(store, &id, node, capability)).await
    }

    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        let (id, node) = (id.to_string(), node.cloned());
        let forget = move |store: &Store| {
            let Some(mut volume) = store.volumes.find::<Volume>(&id)? else { return Ok(()) };
            match node {
                Some(node) => drop(volume.published.remove(&node)),
                None => volume.published.clear(),
            }
            store.volumes.put(&id, &volume)
        };
        self.store.change(call, "unpublish a volume", forget).await
    }

    /// A directory that cannot be made is a mistake to be told at the start.
    async fn ready(&self, call: &Call) -> Result<()> {
        self.store
            .change(call, "prepare the directory", |store| {
                store.volumes.prepare()?;
                store.snapshots.prepare()
            })
            .await
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

fn create(store: &Store, spec: &VolumeSpec) -> Result<model::Volume> {
    let id = id_of(&spec.name);
    let shared = is_shared(&spec.capabilities);
    if let Some(volume) = store.volumes.find::<Volume>(&id)? {
        let fits = spec.size.allows(volume.size) && volume.source == spec.source && (volume.shared || !shared);
        return if fits {
            volume.shown(&id)
        } else {
            Err(Error::new(Kind::Conflict, format!("name {:?} is taken by another volume, {id}", spec.name)))
        };
    }
    let (copied, smallest) = match &spec.source {
        None => (None, Bytes::ZERO),
        Some(ContentSource::Snapshot(source)) => {
            let snapshot: Taken = store.snapshots.get(source.as_str())?;
            (Some(store.snapshots.image(source.as_str())), snapshot.size)
        }
        Some(ContentSource::Volume(source)) => {
            let volume: Volume = store.volumes.get(source.as_str())?;
            volume.refuse_if_in_use(source.as_str())?;
            (Some(store.volumes.image(source.as_str())), volume.size)
        }
    };
    let size = gib(spec.size.whole_gib(smallest.gib_ceil())?)?;
    refuse_if_full(store, size)?;
    store.volumes.prepare()?;
    let image = store.volumes.image(&id);
    match copied {
        Some(from) => sparse::copy(&from, &image).map_err(|error| failed("copy to", &image, error))?,
        // What a crash left half made goes first.
        None => store.volumes.remove(&id)?,
    }
    set_length(&image, size)?;
    let (name, source) = (spec.name.clone(), spec.source.clone());
    let volume = Volume { name, size, source, shared, published: BTreeMap::new() };
    store.volumes.put(&id, &volume)?;
    volume.shown(&id)
}

fn publish(store: &Store, id: &str, node: NodeId, capability: Capability) -> Result<Connection> {
    let mut volume: Volume = store.volumes.get(id)?;
    match volume.published.get(&node) {
        Some(before) if *before != capability => {
            let message = format!("volume {id} is published on node {node} in another way: unpublish it first");
            return Err(Error::new(Kind::Conflict, message));
        }
        Some(_) => {}
        None => {
            let other = volume.published.keys().next();
            if let Some(other) = other.filter(|_| !(volume.shared && capability.mode.is_multi_node())) {
                return Err(Error::wrong_state(format!("volume {id} is published on node {other}")));
            }
            volume.published.insert(node, capability);
            store.volumes.put(id, &volume)?;
        }
    }
    // The node knows where the directory is, and the volume's id does the rest.
    let data = serde_json::json!({});
    Ok(Connection { kind: KIND.to_owned(), data, size: Some(volume.size), read_only: false, sealed: None })
}

#[async_trait]
impl Expand for LoopFiles {
    async fn expand_volume(
        &self,
        call: &Call,
        id: &VolumeId,
        size: SizeRange,
        _capability: Option<&Capability>,
    ) -> Result<Expanded> {
        let id = id.to_string();
        let grow = move |store: &Store| {
            let mut volume: Volume = store.volumes.get(&id)?;
            let wanted = gib(size.whole_gib(volume.size.gib_ceil())?)?;
            if wanted > volume.size {
                refuse_if_full(store, Bytes::new(wanted.get() - volume.size.get()))?;
                // The file first: a size that was told is there.
                set_length(&store.volumes.image(&id), wanted)?;
                volume.size = wanted;
                store.volumes.put(&id, &volume)?;
            }
            Ok(Expanded { size: volume.size, node_step: true })
        };
        self.store.change(call, "grow a volume", grow).await
    }
}

#[async_trait]
impl Snapshots for LoopFiles {
    async fn create_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<Snapshot> {
        refuse_parameters(&spec.parameters)?;
        let (id, name, source) = (id_of(&spec.name), spec.name.clone(), spec.source.clone());
        let take = move |store: &Store| {
            if let Some(before) = store.snapshots.find::<Taken>(&id)? {
                return if before.source == source {
                    before.shown(&id)
                } else {
                    Err(Error::new(Kind::Conflict, format!("name {name:?} is taken by a snapshot of another volume")))
                };
            }
            let volume: Volume = store.volumes.get(source.as_str())?;
            volume.refuse_if_in_use(source.as_str())?;
            store.snapshots.prepare()?;
            let image = store.snapshots.image(&id);
            sparse::copy(&store.volumes.image(source.as_str()), &image)
                .map_err(|error| failed("copy to", &image, error))?;
            let taken = Taken { name, source, size: volume.size, created: Timestamp::now() };
            store.snapshots.put(&id, &taken)?;
            taken.shown(&id)
        };
        self.store.change(call, "take a snapshot", take).await
    }

    async fn delete_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()> {
        let id = id.to_string();
        let remove = move |store: &Store| if is_id(&id) { store.snapshots.remove(&id) } else { Ok(()) };
        self.store.change(call, "remove a snapshot", remove).await
    }

    async fn snapshots(&self, call: &Call, filter: &SnapshotFilter, request: &PageRequest) -> Result<Page<Snapshot>> {
        let (filter, request) = (filter.clone(), request.clone());
        let list = move |store: &Store| {
            let mut ids = store.snapshots.ids()?;
            ids.retain(|id| filter.id.as_ref().is_none_or(|wanted| wanted.as_str() == id));
            page(ids, &request, |id| {
                let found = store.snapshots.find::<Taken>(id)?;
                let matching = found.filter(|taken| filter.source.as_ref().is_none_or(|of| *of == taken.source));
                matching.map(|taken| taken.shown(id)).transpose()
            })
        };
        self.store.read(call, "list snapshots", list).await
    }

    async fn snapshot(&self, call: &Call, id: &SnapshotId) -> Result<Snapshot> {
        let id = id.to_string();
        self.store.read(call, "read a snapshot", move |store| store.snapshots.get::<Taken>(&id)?.shown(&id)).await
    }

    /// They can be used wherever the directory is.
    fn have_topology(&self) -> bool {
        false
    }
}

#[async_trait]
impl Capacity for LoopFiles {
    async fn room(&self, call: &Call, _parameters: &StringMap, _topology: Option<&Topology>) -> Result<Room> {
        let available = self.store.read(call, "measure the directory", |store| left(store.directory())).await?;
        Ok(Room { available, largest: Some(available), smallest: Bytes::from_gib(1) })
    }
}

#[cfg(test)]
mod tests;
