//! Volumes in memory: a whole provider without a cloud, for tests and for authors of plug-ins.
//!
//! It follows every rule of [`crate::provider`], so what passes against it is a property of the layers above. Nothing is
//! stored: a published volume is a record, and there is no device behind it.

use super::{Capacity, Expand, Expanded, Provider, Room, Snapshots};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{
    Bytes, Capability, Connection, ContentSource, NodeId, Page, PageRequest, SizeRange, Snapshot, SnapshotFilter,
    SnapshotId, SnapshotSpec, StringMap, Topology, TopologyRequirement, Volume, VolumeId, VolumeSpec, VolumeStatus,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The topology key of this provider.
const ZONE: &str = "topology.memory.fuxi.openstack.org/zone";

/// Connections of this kind lead nowhere.
const KIND_MEMORY: &str = "memory";

/// What kind of cloud is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySettings {
    /// The zones; the first is the default. Empty: volumes are reachable from everywhere.
    pub zones: Vec<String>,
    /// The nodes that exist; empty for every node.
    pub nodes: BTreeSet<NodeId>,
    /// How much room there is, in GiB.
    pub gib: u64,
    /// How many volumes a node takes.
    pub volumes_per_node: usize,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self { zones: vec!["memory".to_owned()], nodes: BTreeSet::new(), gib: 10_000, volumes_per_node: 25 }
    }
}

/// Volumes in memory.
#[derive(Debug, Default)]
pub struct MemoryProvider {
    settings: MemorySettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many objects were ever made: their numbers order the lists.
    made: u64,
    volumes: BTreeMap<u64, Stored>,
    volume_names: HashMap<String, u64>,
    used_gib: u64,
    snapshots: BTreeMap<u64, StoredSnapshot>,
}

#[derive(Debug, Clone)]
struct Stored {
    name: String,
    volume: Volume,
    gib: u64,
    shareable: bool,
    parameters: StringMap,
    published: BTreeMap<NodeId, Published>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    capability: Capability,
    read_only: bool,
}

#[derive(Debug, Clone)]
struct StoredSnapshot {
    name: String,
    snapshot: Snapshot,
}

impl State {
    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn volume(&self, id: &VolumeId) -> Result<&Stored> {
        let number = number(id.as_str(), "volume").and_then(|number| self.volumes.get(&number));
        number.ok_or_else(|| Error::not_found(format!("volume {id} does not exist")))
    }

    fn volume_mut(&mut self, id: &VolumeId) -> Result<&mut Stored> {
        let number = number(id.as_str(), "volume").and_then(|number| self.volumes.get_mut(&number));
        number.ok_or_else(|| Error::not_found(format!("volume {id} does not exist")))
    }

    fn snapshot(&self, id: &SnapshotId) -> Result<&Snapshot> {
        let number = number(id.as_str(), "snapshot").and_then(|number| self.snapshots.get(&number));
        number.map(|stored| &stored.snapshot).ok_or_else(|| Error::not_found(format!("snapshot {id} does not exist")))
    }
}

/// The number of an object in its id, such as `volume-7`.
fn number(id: &str, noun: &str) -> Option<u64> {
    id.strip_prefix(noun)?.strip_prefix('-')?.parse().ok()
}

impl MemoryProvider {
    /// An empty cloud.
    #[must_use]
    pub fn new(settings: MemorySettings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_gib(&self, state: &State) -> u64 {
        self.settings.gib.saturating_sub(state.used_gib)
    }

    /// The zone that serves a requirement: the first preferred one, else the first requisite one, that there is.
    fn place(&self, requirement: Option<&TopologyRequirement>) -> Result<Vec<Topology>> {
        let Some(default) = self.settings.zones.first() else { return Ok(Vec::new()) };
        let wished: Vec<&Topology> =
            requirement.iter().flat_map(|wish| wish.preferred.iter().chain(&wish.requisite)).collect();
        let zone = if wished.is_empty() {
            default
        } else {
            wished
                .iter()
                .filter_map(|place| place.get(ZONE))
                .find(|zone| self.settings.zones.contains(zone))
                .ok_or_else(|| {
                    Error::new(
                        Kind::Exhausted,
                        format!("accessibility_requirements: there is no zone but {:?}", self.settings.zones),
                    )
                })?
        };
        Ok(vec![Topology::from([(ZONE.to_owned(), zone.clone())])])
    }

    fn check_node(&self, node: &NodeId) -> Result<()> {
        if self.settings.nodes.is_empty() || self.settings.nodes.contains(node) {
            Ok(())
        } else {
            Err(Error::not_found(format!("node {node} does not exist")))
        }
    }
}

/// Whether volumes for these uses are shared between nodes.
fn shareable(capabilities: &[Capability]) -> bool {
    capabilities.iter().any(|capability| capability.mode.is_multi_node())
}

/// A page of what is ordered by number. The token is the number of the last entry, so that it stays good when that
/// entry is removed.
fn page<T, U>(all: &BTreeMap<u64, T>, request: &PageRequest, shown: impl Fn(&T) -> Option<U>) -> Result<Page<U>> {
    let after: u64 = match &request.token {
        Some(token) => token
            .strip_prefix("after-")
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Error::new(Kind::StaleToken, format!("starting_token {token:?} is not one of ours")))?,
        None => 0,
    };
    let most = request.most.map_or(usize::MAX, |most| usize::try_from(most.get()).unwrap_or(usize::MAX));
    let mut rest = all
        .range(after.saturating_add(1)..)
        .filter_map(|(number, object)| shown(object).map(|object| (*number, object)))
        .peekable();
    let mut items = Vec::new();
    let mut last = after;
    while items.len() < most
        && let Some((number, object)) = rest.next()
    {
        items.push(object);
        last = number;
    }
    Ok(Page { items, next: rest.peek().map(|_| format!("after-{last}")) })
}

fn status(stored: &Stored) -> VolumeStatus {
    VolumeStatus {
        volume: stored.volume.clone(),
        published: stored.published.keys().cloned().collect(),
        health: Vec::new(),
    }
}

#[async_trait]
impl Provider for MemoryProvider {
    async fn create_volume(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume> {
        call.check("create volume")?;
        let mut state = self.state();
        if let Some(existing) = state.volume_names.get(&spec.name).and_then(|number| state.volumes.get(number)) {
            let fits = spec.size.allows(existing.volume.size)
                && existing.volume.source == spec.source
                && existing.parameters == spec.parameters
                && (existing.shareable || !shareable(&spec.capabilities));
            return if fits {
                Ok(existing.volume.clone())
            } else {
                Err(Error::new(
                    Kind::Conflict,
                    format!("name {:?} is taken by {}, which is another volume", spec.name, existing.volume.id),
                ))
            };
        }
        let smallest = match &spec.source {
            Some(ContentSource::Volume(id)) => state.volume(id)?.gib,
            Some(ContentSource::Snapshot(id)) => state.snapshot(id)?.size.gib_ceil(),
            None => 1,
        };
        let topology = self.place(spec.topology.as_ref())?;
        let gib = spec.size.whole_gib(smallest)?;
        if gib > self.left_gib(&state) {
            let (message, kind) = if gib > self.settings.gib {
                ("is more than there ever is", Kind::OutOfRange)
            } else {
                ("is more than is left", Kind::Exhausted)
            };
            return Err(Error::new(kind, format!("capacity_range: {gib} GiB {message}")));
        }
        let size = Bytes::from_gib(gib).ok_or_else(|| Error::new(Kind::OutOfRange, "capacity_range"))?;
        let number = state.next();
        let volume = Volume {
            id: format!("volume-{number}").parse()?,
            size,
            source: spec.source.clone(),
            topology,
            context: StringMap::new(),
        };
        state.used_gib += gib;
        state.volume_names.insert(spec.name.clone(), number);
        state.volumes.insert(
            number,
            Stored {
                name: spec.name.clone(),
                volume: volume.clone(),
                gib,
                shareable: shareable(&spec.capabilities),
                parameters: spec.parameters.clone(),
                published: BTreeMap::new(),
            },
        );
        Ok(volume)
    }

    async fn delete_volume(&self, call: &Call, id: &VolumeId) -> Result<()> {
        call.check("delete volume")?;
        let mut state = self.state();
        let Ok(stored) = state.volume(id) else { return Ok(()) };
        if let Some(node) = stored.published.keys().next() {
            return Err(Error::wrong_state(format!("volume {id} is published on node {node}: unpublish it first")));
        }
        if let Some(stored) = state.snapshots.values().find(|stored| stored.snapshot.source == *id) {
            return Err(Error::wrong_state(format!(
                "volume {id} has snapshot {}: delete that first",
                stored.snapshot.id
            )));
        }
        if let Some(removed) = number(id.as_str(), "volume").and_then(|number| state.volumes.remove(&number)) {
            state.volume_names.remove(&removed.name);
            state.used_gib -= removed.gib;
        }
        Ok(())
    }

    async fn volume(&self, _call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        self.state().volume(id).map(status)
    }

    async fn volumes(&self, _call: &Call, request: &PageRequest) -> Result<Page<VolumeStatus>> {
        page(&self.state().volumes, request, |stored| Some(status(stored)))
    }

    async fn validate(
        &self,
        _call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>> {
        let state = self.state();
        let stored = state.volume(id)?;
        Ok(if shareable(capabilities) && !stored.shareable {
            Err(format!("volume {id} was not made for several nodes"))
        } else if !parameters.is_empty() && *parameters != stored.parameters {
            Err(format!("volume {id} was made with other parameters"))
        } else {
            Ok(())
        })
    }

    async fn publish(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection> {
        call.check("publish volume")?;
        let mut state = self.state();
        let on_node = state.volumes.values().filter(|stored| stored.published.contains_key(node)).count();
        let stored = state.volume_mut(id)?;
        self.check_node(node)?;
        let wanted = Published { capability: capability.clone(), read_only };
        if let Some(published) = stored.published.get(node) {
            if *published != wanted {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("volume {id} is published on node {node} in another way: unpublish it first"),
                ));
            }
        } else if let Some(other) = stored.published.keys().next()
            && !(stored.shareable && capability.mode.is_multi_node())
        {
            return Err(Error::wrong_state(format!("volume {id} is published on node {other}: unpublish it first")));
        } else if on_node >= self.settings.volumes_per_node {
            return Err(Error::new(Kind::Exhausted, format!("node {node} has {on_node} volumes and takes no more")));
        }
        stored.published.insert(node.clone(), wanted);
        Ok(Connection {
            kind: KIND_MEMORY.to_owned(),
            data: serde_json::json!({}),
            size: Some(stored.volume.size),
            read_only: false,
            sealed: None,
        })
    }

    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        call.check("unpublish volume")?;
        let mut state = self.state();
        let Ok(stored) = state.volume_mut(id) else { return Ok(()) };
        match node {
            Some(node) => drop(stored.published.remove(node)),
            None => stored.published.clear(),
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

    fn publishes_read_only(&self) -> bool {
        true
    }
}

#[async_trait]
impl Expand for MemoryProvider {
    async fn expand_volume(
        &self,
        call: &Call,
        id: &VolumeId,
        size: SizeRange,
        _capability: Option<&Capability>,
    ) -> Result<Expanded> {
        call.check("expand volume")?;
        let mut state = self.state();
        let present = state.volume(id)?.gib;
        let wanted = size.whole_gib(present)?;
        let left = self.left_gib(&state);
        if wanted - present > left {
            let kind = if wanted > self.settings.gib { Kind::OutOfRange } else { Kind::Exhausted };
            return Err(Error::new(kind, format!("volume {id}: {left} GiB are left, too little to get {wanted} GiB")));
        }
        let stored = state.volume_mut(id)?;
        stored.gib = wanted;
        stored.volume.size = Bytes::from_gib(wanted).ok_or_else(|| Error::new(Kind::OutOfRange, "capacity_range"))?;
        let size = stored.volume.size;
        state.used_gib += wanted - present;
        Ok(Expanded { size, node_step: true })
    }
}

#[async_trait]
impl Snapshots for MemoryProvider {
    async fn create_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<Snapshot> {
        call.check("create snapshot")?;
        let mut state = self.state();
        if let Some(existing) = state.snapshots.values().find(|stored| stored.name == spec.name) {
            return if existing.snapshot.source == spec.source {
                Ok(existing.snapshot.clone())
            } else {
                Err(Error::new(
                    Kind::Conflict,
                    format!("name {:?} is taken by {}, of another volume", spec.name, existing.snapshot.id),
                ))
            };
        }
        let source = &state.volume(&spec.source)?.volume;
        let (size, topology) = (source.size, source.topology.clone());
        let number = state.next();
        let snapshot = Snapshot {
            id: format!("snapshot-{number}").parse()?,
            source: spec.source.clone(),
            size,
            created: jiff::Timestamp::now(),
            ready: true,
            topology,
        };
        state.snapshots.insert(number, StoredSnapshot { name: spec.name.clone(), snapshot: snapshot.clone() });
        Ok(snapshot)
    }

    async fn delete_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()> {
        call.check("delete snapshot")?;
        if let Some(number) = number(id.as_str(), "snapshot") {
            self.state().snapshots.remove(&number);
        }
        Ok(())
    }

    async fn snapshots(&self, _call: &Call, filter: &SnapshotFilter, request: &PageRequest) -> Result<Page<Snapshot>> {
        page(&self.state().snapshots, request, |stored| {
            let matches = filter.id.as_ref().is_none_or(|id| stored.snapshot.id == *id)
                && filter.source.as_ref().is_none_or(|source| stored.snapshot.source == *source);
            matches.then(|| stored.snapshot.clone())
        })
    }

    async fn snapshot(&self, _call: &Call, id: &SnapshotId) -> Result<Snapshot> {
        self.state().snapshot(id).cloned()
    }
}

#[async_trait]
impl Capacity for MemoryProvider {
    async fn room(&self, _call: &Call, _parameters: &StringMap, topology: Option<&Topology>) -> Result<Room> {
        let is_here = topology
            .and_then(|place| place.get(ZONE))
            .is_none_or(|zone| self.settings.zones.is_empty() || self.settings.zones.contains(zone));
        let left = if is_here { self.left_gib(&self.state()) } else { 0 };
        let available = Bytes::from_gib(left).unwrap_or(Bytes::new(u64::MAX));
        Ok(Room { available, largest: Some(available), smallest: Bytes::from_gib(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryProvider, MemorySettings, ZONE};
    use crate::call::Call;
    use crate::error::Kind;
    use crate::model::{
        AccessKind, AccessMode, Bytes, Capability, ContentSource, PageRequest, SizeRange, SnapshotFilter, SnapshotSpec,
        StringMap, Topology, TopologyRequirement, VolumeSpec,
    };
    use crate::provider::{Capacity, Expand, Provider, Snapshots};
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn call() -> Call {
        Call::lasting(Duration::from_secs(1))
    }

    fn raw(mode: AccessMode) -> Capability {
        Capability { mode, kind: AccessKind::Block }
    }

    fn spec(name: &str, gib: u64) -> VolumeSpec {
        VolumeSpec {
            name: name.to_owned(),
            size: SizeRange { required: Bytes::from_gib(gib).unwrap(), limit: None },
            source: None,
            capabilities: vec![raw(AccessMode::SingleNodeWriter)],
            parameters: StringMap::new(),
            mutable_parameters: StringMap::new(),
            topology: None,
            secrets: crate::model::Secrets::new(),
        }
    }

    #[tokio::test]
    async fn the_same_name_is_the_same_volume_or_a_conflict() {
        let provider = MemoryProvider::default();
        let first = provider.create_volume(&call(), &spec("a", 2)).await.unwrap();
        assert_eq!(provider.create_volume(&call(), &spec("a", 1)).await.unwrap(), first);
        assert_eq!(provider.create_volume(&call(), &spec("a", 3)).await.unwrap_err().kind(), Kind::Conflict);
        assert_ne!(provider.create_volume(&call(), &spec("b", 2)).await.unwrap().id, first.id);
    }

    #[tokio::test]
    async fn a_volume_for_one_node_goes_to_one_node() {
        let provider = MemoryProvider::default();
        let id = provider.create_volume(&call(), &spec("a", 1)).await.unwrap().id;
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let writer = raw(AccessMode::SingleNodeWriter);
        let first = provider.publish(&call(), &id, &one, &writer, false).await.unwrap();
        assert_eq!(provider.publish(&call(), &id, &one, &writer, false).await.unwrap(), first);
        let kind = |result: crate::error::Result<_>| result.map(|_: crate::model::Connection| ()).unwrap_err().kind();
        assert_eq!(kind(provider.publish(&call(), &id, &one, &writer, true).await), Kind::Conflict);
        assert_eq!(kind(provider.publish(&call(), &id, &two, &writer, false).await), Kind::WrongState);
        assert_eq!(provider.delete_volume(&call(), &id).await.unwrap_err().kind(), Kind::WrongState);
        provider.unpublish(&call(), &id, None).await.unwrap();
        provider.unpublish(&call(), &id, Some(&one)).await.unwrap();
        provider.delete_volume(&call(), &id).await.unwrap();
        provider.delete_volume(&call(), &id).await.unwrap();
        provider.unpublish(&call(), &id, Some(&one)).await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_is_at_least_as_large_as_its_source() {
        let provider = MemoryProvider::default();
        let source = provider.create_volume(&call(), &spec("source", 4)).await.unwrap().id;
        let taken = SnapshotSpec {
            name: "s".to_owned(),
            source: source.clone(),
            parameters: StringMap::new(),
            topology: None,
            secrets: crate::model::Secrets::new(),
        };
        let snapshot = provider.create_snapshot(&call(), &taken).await.unwrap();
        assert_eq!(provider.create_snapshot(&call(), &taken).await.unwrap(), snapshot);
        let copy = VolumeSpec { source: Some(ContentSource::Snapshot(snapshot.id.clone())), ..spec("copy", 1) };
        assert_eq!(provider.create_volume(&call(), &copy).await.unwrap().size.gib_ceil(), 4);
        let larger = VolumeSpec { source: Some(ContentSource::Volume(source.clone())), ..spec("larger", 6) };
        assert_eq!(provider.create_volume(&call(), &larger).await.unwrap().size.gib_ceil(), 6);
        assert_eq!(provider.delete_volume(&call(), &source).await.unwrap_err().kind(), Kind::WrongState);
        let filter = SnapshotFilter { id: None, source: Some(source.clone()) };
        let listed = Snapshots::snapshots(&provider, &call(), &filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items, std::slice::from_ref(&snapshot));
        provider.delete_snapshot(&call(), &snapshot.id).await.unwrap();
        provider.delete_volume(&call(), &source).await.unwrap();
    }

    #[tokio::test]
    async fn room_and_size_are_bounded() {
        let provider = MemoryProvider::new(MemorySettings { gib: 10, ..MemorySettings::default() });
        let id = provider.create_volume(&call(), &spec("a", 4)).await.unwrap().id;
        assert_eq!(provider.create_volume(&call(), &spec("b", 7)).await.unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(provider.create_volume(&call(), &spec("b", 11)).await.unwrap_err().kind(), Kind::OutOfRange);
        let size = |gib| SizeRange { required: Bytes::from_gib(gib).unwrap(), limit: None };
        assert_eq!(provider.expand_volume(&call(), &id, size(11), None).await.unwrap_err().kind(), Kind::OutOfRange);
        assert_eq!(provider.expand_volume(&call(), &id, size(9), None).await.unwrap().size.gib_ceil(), 9);
        assert_eq!(provider.expand_volume(&call(), &id, size(2), None).await.unwrap().size.gib_ceil(), 9);
        let room = provider.room(&call(), &StringMap::new(), None).await.unwrap();
        assert_eq!(room.available, Bytes::from_gib(1).unwrap());
        let elsewhere = Topology::from([(ZONE.to_owned(), "elsewhere".to_owned())]);
        let room = provider.room(&call(), &StringMap::new(), Some(&elsewhere)).await.unwrap();
        assert_eq!(room.available, Bytes::ZERO);
    }

    #[tokio::test]
    async fn the_preferred_zone_that_exists_is_chosen() {
        let zones = vec!["one".to_owned(), "two".to_owned()];
        let provider = MemoryProvider::new(MemorySettings { zones, ..MemorySettings::default() });
        let place = |zone: &str| Topology::from([(ZONE.to_owned(), zone.to_owned())]);
        let wish = |zones: &[&str]| {
            Some(TopologyRequirement {
                requisite: Vec::new(),
                preferred: zones.iter().map(|zone| place(zone)).collect(),
            })
        };
        let at = |name: &str, zones: &[&str]| VolumeSpec { topology: wish(zones), ..spec(name, 1) };
        let volume = provider.create_volume(&call(), &at("a", &["three", "two"])).await.unwrap();
        assert_eq!(volume.topology, [place("two")]);
        let error = provider.create_volume(&call(), &at("b", &["three"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted);
    }

    #[tokio::test]
    async fn pages_survive_the_removal_of_their_last_entry() {
        let provider = MemoryProvider::default();
        for name in ["a", "b", "c", "d", "e"] {
            provider.create_volume(&call(), &spec(name, 1)).await.unwrap();
        }
        let ask = |token| PageRequest { most: NonZeroU32::new(2), token };
        let first = provider.volumes(&call(), &ask(None)).await.unwrap();
        provider.delete_volume(&call(), &first.items[1].volume.id).await.unwrap();
        let second = provider.volumes(&call(), &ask(first.next)).await.unwrap();
        let third = provider.volumes(&call(), &ask(second.next)).await.unwrap();
        assert_eq!((second.items.len(), third.items.len(), third.next), (2, 1, None));
        let error = provider.volumes(&call(), &ask(Some("nonsense".to_owned()))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StaleToken);
    }
}
