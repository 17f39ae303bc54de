//! The provider on a directory; no root, no loop devices.

use super::{ABILITIES, LoopFiles};
use crate::shelf::id_of;
use crate::store::Store;
use fuxi_csi::app::Abilities;
use fuxi_csi::call::Call;
use fuxi_csi::error::{Kind, Result};
use fuxi_csi::initiator::Initiator;
use fuxi_csi::model::{
    AccessKind, AccessMode, Bytes, Capability, ContentSource, NodeId, PageRequest, Secrets, SizeRange, SnapshotFilter,
    SnapshotSpec, StringMap, VolumeSpec,
};
use fuxi_csi::provider::{Expand, Provider, Snapshots};
use fuxi_csi::seal::PrivateKey;
use std::fmt::Debug;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::time::Duration;

struct Bench {
    provider: LoopFiles,
    store: Store,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("files"));
        Self { provider: LoopFiles::new(store.clone()), store, _directory: directory }
    }
}

fn call() -> Call {
    Call::lasting(Duration::from_secs(20))
}

fn writer() -> Capability {
    Capability { mode: AccessMode::SingleNodeWriter, kind: AccessKind::Block }
}

fn everybody() -> Capability {
    Capability { mode: AccessMode::MultiNodeMultiWriter, kind: AccessKind::Block }
}

fn size(gib: u64) -> SizeRange {
    SizeRange { required: Bytes::from_gib(gib).unwrap(), limit: None }
}

fn spec(name: &str, gib: u64) -> VolumeSpec {
    VolumeSpec {
        name: name.to_owned(),
        size: size(gib),
        source: None,
        capabilities: vec![writer()],
        parameters: StringMap::new(),
        mutable_parameters: StringMap::new(),
        topology: None,
        secrets: Secrets::new(),
    }
}

fn node(name: &str) -> NodeId {
    let host = Initiator {
        public_key: PrivateKey::generate().public(),
        host: name.to_owned(),
        ip: None,
        iqn: None,
        nqn: None,
        nvme_host_id: None,
        wwpns: Vec::new(),
        wwnns: Vec::new(),
        multipath: false,
        system_uuid: None,
    };
    host.pack().unwrap()
}

fn kind<T: Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind()
}

#[test]
fn the_provider_can_do_what_nodes_say() {
    assert_eq!(Abilities::of(&Bench::new().provider), ABILITIES);
}

#[tokio::test]
async fn the_same_name_is_the_same_volume_or_a_conflict() {
    let Bench { provider, store, .. } = Bench::new();
    let first = provider.create_volume(&call(), &spec("a", 2)).await.unwrap();
    assert_eq!(provider.create_volume(&call(), &spec("a", 1)).await.unwrap(), first);
    assert_eq!(kind(provider.create_volume(&call(), &spec("a", 3)).await), Kind::Conflict);
    let shared = VolumeSpec { capabilities: vec![everybody()], ..spec("a", 2) };
    assert_eq!(kind(provider.create_volume(&call(), &shared).await), Kind::Conflict);
    assert_eq!(std::fs::metadata(store.volumes.image(first.id.as_str())).unwrap().len(), 2 << 30);
    provider.delete_volume(&call(), &first.id).await.unwrap();
    provider.delete_volume(&call(), &first.id).await.unwrap();
    assert_eq!(kind(provider.volume(&call(), &first.id).await), Kind::NotFound);
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_made_anew() {
    let Bench { provider, store, .. } = Bench::new();
    provider.ready(&call()).await.unwrap();
    let image = store.volumes.image(&id_of("a"));
    std::fs::write(&image, "somebody else's").unwrap();
    provider.create_volume(&call(), &spec("a", 1)).await.unwrap();
    let mut start = [1; 15];
    std::fs::File::open(&image).unwrap().read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, [0; 15]);
}

#[tokio::test]
async fn a_volume_for_one_node_goes_to_one_node() {
    let Bench { provider, .. } = Bench::new();
    let id = provider.create_volume(&call(), &spec("a", 1)).await.unwrap().id;
    let (one, two) = (node("one"), node("two"));
    let first = provider.publish(&call(), &id, &one, &writer(), false).await.unwrap();
    assert_eq!(provider.publish(&call(), &id, &one, &writer(), false).await.unwrap(), first);
    assert_eq!(kind(provider.publish(&call(), &id, &one, &everybody(), false).await), Kind::Conflict);
    assert_eq!(kind(provider.publish(&call(), &id, &two, &writer(), false).await), Kind::WrongState);
    assert_eq!(kind(provider.delete_volume(&call(), &id).await), Kind::WrongState);
    let stranger = "no-node-of-ours".parse().unwrap();
    assert_eq!(kind(provider.publish(&call(), &id, &stranger, &writer(), false).await), Kind::NotFound);
    assert_eq!(provider.volume(&call(), &id).await.unwrap().published, std::slice::from_ref(&one));
    provider.unpublish(&call(), &id, Some(&one)).await.unwrap();
    provider.unpublish(&call(), &id, None).await.unwrap();
    provider.publish(&call(), &id, &two, &writer(), false).await.unwrap();
}

#[tokio::test]
async fn copies_have_the_content_and_at_least_the_size() {
    let Bench { provider, store, .. } = Bench::new();
    let source = provider.create_volume(&call(), &spec("source", 2)).await.unwrap().id;
    let file = std::fs::File::options().write(true).open(store.volumes.image(source.as_str())).unwrap();
    file.write_all_at(b"precious", 1 << 30).unwrap();
    let taken = SnapshotSpec {
        name: "s".to_owned(),
        source: source.clone(),
        parameters: StringMap::new(),
        topology: None,
        secrets: Secrets::new(),
    };
    let one = node("one");
    provider.publish(&call(), &source, &one, &writer(), false).await.unwrap();
    assert_eq!(kind(provider.create_snapshot(&call(), &taken).await), Kind::WrongState);
    provider.unpublish(&call(), &source, None).await.unwrap();
    let snapshot = provider.create_snapshot(&call(), &taken).await.unwrap();
    assert_eq!(provider.create_snapshot(&call(), &taken).await.unwrap(), snapshot);
    for (name, from) in [
        ("of-snapshot", ContentSource::Snapshot(snapshot.id.clone())),
        ("of-volume", ContentSource::Volume(source.clone())),
    ] {
        let copy = VolumeSpec { source: Some(from), ..spec(name, 1) };
        let volume = provider.create_volume(&call(), &copy).await.unwrap();
        assert_eq!(volume.size, Bytes::from_gib(2).unwrap());
        let mut found = [0; 8];
        let image = std::fs::File::open(store.volumes.image(volume.id.as_str())).unwrap();
        image.read_exact_at(&mut found, 1 << 30).unwrap();
        assert_eq!(&found, b"precious");
    }
    let filter = SnapshotFilter { id: None, source: Some(source) };
    let listed = Snapshots::snapshots(&provider, &call(), &filter, &PageRequest::default()).await.unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&snapshot));
    provider.delete_snapshot(&call(), &snapshot.id).await.unwrap();
    provider.delete_snapshot(&call(), &snapshot.id).await.unwrap();
}

#[tokio::test]
async fn a_volume_grows_and_never_shrinks() {
    let Bench { provider, store, .. } = Bench::new();
    let id = provider.create_volume(&call(), &spec("a", 1)).await.unwrap().id;
    assert_eq!(provider.expand_volume(&call(), &id, size(3), None).await.unwrap().size, size(3).required);
    assert_eq!(provider.expand_volume(&call(), &id, size(2), None).await.unwrap().size, size(3).required);
    assert_eq!(std::fs::metadata(store.volumes.image(id.as_str())).unwrap().len(), 3 << 30);
    let huge = SizeRange { required: Bytes::new(u64::MAX), limit: None };
    assert_eq!(kind(provider.expand_volume(&call(), &id, huge, None).await), Kind::OutOfRange);
    let too_much = size(1 << 30);
    assert_eq!(kind(provider.expand_volume(&call(), &id, too_much, None).await), Kind::Exhausted);
}

#[tokio::test]
async fn parameters_are_refused_and_pages_go_on_after_a_removal() {
    let Bench { provider, .. } = Bench::new();
    let parameters = StringMap::from([("type".to_owned(), "fast".to_owned())]);
    let wrong = VolumeSpec { parameters, ..spec("a", 1) };
    assert_eq!(kind(provider.create_volume(&call(), &wrong).await), Kind::InvalidArgument);
    assert!(provider.volumes(&call(), &PageRequest::default()).await.unwrap().items.is_empty());
    for name in ["a", "b", "c", "d", "e"] {
        provider.create_volume(&call(), &spec(name, 1)).await.unwrap();
    }
    let ask = |token| PageRequest { most: NonZeroU32::new(2), token };
    let first = provider.volumes(&call(), &ask(None)).await.unwrap();
    provider.delete_volume(&call(), &first.items[1].volume.id).await.unwrap();
    let second = provider.volumes(&call(), &ask(first.next)).await.unwrap();
    let third = provider.volumes(&call(), &ask(second.next)).await.unwrap();
    assert_eq!((second.items.len(), third.items.len(), third.next), (2, 1, None));
    assert_eq!(kind(provider.volumes(&call(), &ask(Some("nonsense".to_owned()))).await), Kind::StaleToken);
}
