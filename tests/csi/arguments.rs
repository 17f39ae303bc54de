//! Every missing or malformed field of every RPC of the controller is INVALID_ARGUMENT, and the message names it.

use crate::driver::{Driver, create, gib, mounted, mounted_as, publish, raw_as};
use fuxi_csi::csi::proto;
use fuxi_csi::model::StringMap;
use proto::volume_capability::access_mode::Mode;
use std::fmt::Debug;
use tonic::{Code, Response, Status};

/// An answer that must be the refusal of a field.
fn assert_refused<T: Debug>(answer: Result<Response<T>, Status>, field: &str) {
    assert_code(answer, Code::InvalidArgument, field);
}

fn assert_code<T: Debug>(answer: Result<Response<T>, Status>, code: Code, words: &str) {
    let status = answer.expect_err(words);
    assert_eq!(status.code(), code, "{words}: {status}");
    assert!(status.message().contains(words), "{words:?} is not in {:?}", status.message());
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// Capabilities that no request may have, and the words that say so. `f` stands for the field.
fn wrong_capabilities() -> Vec<(proto::VolumeCapability, &'static str)> {
    let mount = |mount| proto::VolumeCapability {
        access_type: Some(proto::volume_capability::AccessType::Mount(mount)),
        ..mounted()
    };
    let mode = |mode| proto::VolumeCapability {
        access_mode: Some(proto::volume_capability::AccessMode { mode }),
        ..mounted()
    };
    let default = proto::volume_capability::MountVolume::default;
    vec![
        (proto::VolumeCapability { access_mode: None, ..mounted() }, "access_mode is missing"),
        (proto::VolumeCapability { access_type: None, ..mounted() }, "access_type is missing"),
        (mode(0), "access_mode.mode is UNKNOWN"),
        (mode(99), "access_mode.mode is 99"),
        (mode(-1), "access_mode.mode is -1"),
        (mount(proto::volume_capability::MountVolume { fs_type: text("ext4; rm"), ..default() }), "mount.fs_type"),
        (mount(proto::volume_capability::MountVolume { fs_type: text("../ext4"), ..default() }), "mount.fs_type"),
        (mount(proto::volume_capability::MountVolume { mount_flags: vec![text("")], ..default() }), "mount_flags[0]"),
        (mounted_as(Mode::MultiNodeMultiWriter), "several nodes"),
        (mounted_as(Mode::MultiNodeSingleWriter), "several nodes"),
    ]
}

fn topology(requisite: &[(&str, &str)]) -> Option<proto::TopologyRequirement> {
    let place = |(key, value): &(&str, &str)| proto::Topology {
        segments: StringMap::from([((*key).to_owned(), (*value).to_owned())]),
    };
    Some(proto::TopologyRequirement { requisite: requisite.iter().map(place).collect(), preferred: Vec::new() })
}

#[tokio::test]
async fn create_volume() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let good = || create("good");
    let source = |r#type| Some(proto::VolumeContentSource { r#type });
    let range = |required_bytes, limit_bytes| Some(proto::CapacityRange { required_bytes, limit_bytes });
    let snapshot = |id: &str| {
        Some(proto::volume_content_source::Type::Snapshot(proto::volume_content_source::SnapshotSource {
            snapshot_id: text(id),
        }))
    };
    let volume = |id: &str| {
        Some(proto::volume_content_source::Type::Volume(proto::volume_content_source::VolumeSource {
            volume_id: text(id),
        }))
    };
    for (request, field) in [
        (proto::CreateVolumeRequest { name: text(""), ..good() }, "name is missing"),
        (proto::CreateVolumeRequest { name: text("a\u{7}b"), ..good() }, "name \"a\\u{7}b\""),
        (proto::CreateVolumeRequest { name: "x".repeat(256), ..good() }, "name has 256 bytes"),
        (proto::CreateVolumeRequest { volume_capabilities: vec![], ..good() }, "volume_capabilities is missing"),
        (proto::CreateVolumeRequest { capacity_range: range(-1, 0), ..good() }, "required_bytes is -1"),
        (proto::CreateVolumeRequest { capacity_range: range(0, -2), ..good() }, "limit_bytes is -2"),
        (proto::CreateVolumeRequest { capacity_range: range(2, 1), ..good() }, "limit_bytes (1 bytes) is less"),
        (proto::CreateVolumeRequest { volume_content_source: source(None), ..good() }, "volume_content_source.type"),
        (
            proto::CreateVolumeRequest { volume_content_source: source(snapshot("")), ..good() },
            "volume_content_source.snapshot.snapshot_id is missing",
        ),
        (
            proto::CreateVolumeRequest { volume_content_source: source(volume("")), ..good() },
            "volume_content_source.volume.volume_id is missing",
        ),
        (
            proto::CreateVolumeRequest { volume_content_source: source(volume("a\nb")), ..good() },
            "volume_content_source.volume.volume_id",
        ),
        (
            proto::CreateVolumeRequest { accessibility_requirements: topology(&[("zone", "")]), ..good() },
            "accessibility_requirements.requisite[0].segments",
        ),
        (
            proto::CreateVolumeRequest { mutable_parameters: StringMap::from([(text("iops"), text("5"))]), ..good() },
            "mutable_parameters: \"iops\"",
        ),
    ] {
        assert_refused(client.create_volume(request).await, field);
    }
    for (capability, words) in wrong_capabilities() {
        let request = proto::CreateVolumeRequest { volume_capabilities: vec![mounted(), capability], ..good() };
        assert_refused(client.create_volume(request).await, words);
    }
    for (of, words) in [(snapshot("gone"), "snapshot gone"), (volume("gone"), "volume gone")] {
        let request = proto::CreateVolumeRequest { volume_content_source: source(of), ..good() };
        assert_code(client.create_volume(request).await, Code::NotFound, words);
    }
    let exact = proto::CreateVolumeRequest { capacity_range: range(1, 2), ..good() };
    assert_code(client.create_volume(exact).await, Code::OutOfRange, "limit_bytes");
    let elsewhere = proto::CreateVolumeRequest { accessibility_requirements: topology(&[("zone", "mars")]), ..good() };
    assert_code(client.create_volume(elsewhere).await, Code::ResourceExhausted, "accessibility_requirements");
    assert!(client.list_volumes(proto::ListVolumesRequest::default()).await.unwrap().into_inner().entries.is_empty());
    client.create_volume(good()).await.unwrap();
    let raw = proto::CreateVolumeRequest {
        name: text("raw"),
        volume_capabilities: vec![raw_as(Mode::MultiNodeMultiWriter)],
        ..good()
    };
    client.create_volume(raw).await.unwrap();
    let other = proto::CreateVolumeRequest { capacity_range: gib(2), ..good() };
    assert_code(client.create_volume(other).await, Code::AlreadyExists, "\"good\"");
}

#[tokio::test]
async fn delete_and_look_at_volumes() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    for id in ["", "a\nb", &"x".repeat(257)] {
        let volume_id = text(id);
        let delete = proto::DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() };
        assert_refused(client.delete_volume(delete).await, "volume_id");
        let get = proto::ControllerGetVolumeRequest { volume_id: volume_id.clone() };
        assert_refused(client.controller_get_volume(get).await, "volume_id");
        let health = proto::ControllerGetVolumeHealthRequest { volume_id, ..Default::default() };
        assert_refused(client.controller_get_volume_health(health).await, "volume_id");
    }
    let volume_id = text("gone");
    let delete = proto::DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() };
    client.delete_volume(delete).await.unwrap();
    let get = proto::ControllerGetVolumeRequest { volume_id: volume_id.clone() };
    assert_code(client.controller_get_volume(get).await, Code::NotFound, "volume gone");
    let health = proto::ControllerGetVolumeHealthRequest { volume_id, ..Default::default() };
    assert_code(client.controller_get_volume_health(health).await, Code::NotFound, "volume gone");
}

#[tokio::test]
async fn publish_and_unpublish() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let id = driver.volume("v").await;
    let good = || publish(&id);
    for (request, field) in [
        (proto::ControllerPublishVolumeRequest { volume_id: text(""), ..good() }, "volume_id is missing"),
        (proto::ControllerPublishVolumeRequest { node_id: text(""), ..good() }, "node_id is missing"),
        (proto::ControllerPublishVolumeRequest { node_id: "x".repeat(257), ..good() }, "node_id"),
        (proto::ControllerPublishVolumeRequest { volume_capability: None, ..good() }, "volume_capability is missing"),
    ] {
        assert_refused(client.controller_publish_volume(request).await, field);
    }
    for (capability, words) in wrong_capabilities() {
        let request = proto::ControllerPublishVolumeRequest { volume_capability: Some(capability), ..good() };
        assert_refused(client.controller_publish_volume(request).await, words);
    }
    assert_code(client.controller_publish_volume(publish("gone")).await, Code::NotFound, "volume gone");
    for (volume_id, node_id, field) in [("", "n", "volume_id is missing"), (&id, "a\nb", "node_id")] {
        let request = proto::ControllerUnpublishVolumeRequest {
            volume_id: text(volume_id),
            node_id: text(node_id),
            ..Default::default()
        };
        assert_refused(client.controller_unpublish_volume(request).await, field);
    }
}

#[tokio::test]
async fn validate_volume_capabilities() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let id = driver.volume("v").await;
    let good = || proto::ValidateVolumeCapabilitiesRequest {
        volume_id: id.clone(),
        volume_capabilities: vec![mounted()],
        ..Default::default()
    };
    for (request, field) in [
        (proto::ValidateVolumeCapabilitiesRequest { volume_id: text(""), ..good() }, "volume_id is missing"),
        (
            proto::ValidateVolumeCapabilitiesRequest { volume_capabilities: vec![], ..good() },
            "volume_capabilities is missing",
        ),
    ] {
        assert_refused(client.validate_volume_capabilities(request).await, field);
    }
    let gone = proto::ValidateVolumeCapabilitiesRequest { volume_id: text("gone"), ..good() };
    assert_code(client.validate_volume_capabilities(gone).await, Code::NotFound, "volume gone");

    let confirmed = client.validate_volume_capabilities(good()).await.unwrap().into_inner();
    assert_eq!(confirmed.confirmed.unwrap().volume_capabilities, [mounted()]);
    let shared = proto::ValidateVolumeCapabilitiesRequest {
        volume_capabilities: vec![mounted(), mounted_as(Mode::MultiNodeMultiWriter)],
        ..good()
    };
    let refused = client.validate_volume_capabilities(shared).await.unwrap().into_inner();
    assert_eq!(refused.confirmed, None);
    assert!(refused.message.contains("several nodes"), "{}", refused.message);
}

#[tokio::test]
async fn lists_and_capacity() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let volumes = proto::ListVolumesRequest { max_entries: -1, ..Default::default() };
    assert_refused(client.list_volumes(volumes).await, "max_entries is -1");
    let health = proto::ControllerListVolumeHealthRequest { max_entries: -1, ..Default::default() };
    assert_refused(client.controller_list_volume_health(health).await, "max_entries is -1");
    let snapshots = proto::ListSnapshotsRequest { max_entries: -1, ..Default::default() };
    assert_refused(client.list_snapshots(snapshots).await, "max_entries is -1");
    let starting_token = || text("from another driver");
    let volumes = proto::ListVolumesRequest { starting_token: starting_token(), ..Default::default() };
    assert_code(client.list_volumes(volumes).await, Code::Aborted, "starting_token");
    let snapshots = proto::ListSnapshotsRequest { starting_token: starting_token(), ..Default::default() };
    assert_code(client.list_snapshots(snapshots).await, Code::Aborted, "starting_token");
    let unknown = proto::ListSnapshotsRequest { snapshot_id: text("gone"), ..Default::default() };
    assert!(client.list_snapshots(unknown).await.unwrap().into_inner().entries.is_empty());

    let wrong = proto::VolumeCapability { access_mode: None, ..mounted() };
    let capacity = proto::GetCapacityRequest { volume_capabilities: vec![wrong], ..Default::default() };
    assert_refused(client.get_capacity(capacity).await, "volume_capabilities[0].access_mode");
    let never = proto::GetCapacityRequest {
        volume_capabilities: vec![mounted_as(Mode::MultiNodeMultiWriter)],
        ..Default::default()
    };
    assert_eq!(client.get_capacity(never).await.unwrap().into_inner().available_capacity, 0);
    let room = client.get_capacity(proto::GetCapacityRequest::default()).await.unwrap().into_inner();
    assert_eq!(room.available_capacity, 10_000 << 30);
}

#[tokio::test]
async fn expand_volume() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let id = driver.volume("v").await;
    let good =
        || proto::ControllerExpandVolumeRequest { volume_id: id.clone(), capacity_range: gib(2), ..Default::default() };
    let range = |required_bytes, limit_bytes| Some(proto::CapacityRange { required_bytes, limit_bytes });
    for (request, field) in [
        (proto::ControllerExpandVolumeRequest { volume_id: text(""), ..good() }, "volume_id is missing"),
        (proto::ControllerExpandVolumeRequest { capacity_range: None, ..good() }, "capacity_range is missing"),
        (proto::ControllerExpandVolumeRequest { capacity_range: range(0, 0), ..good() }, "capacity_range is missing"),
        (proto::ControllerExpandVolumeRequest { capacity_range: range(-1, 0), ..good() }, "required_bytes is -1"),
    ] {
        assert_refused(client.controller_expand_volume(request).await, field);
    }
    for (capability, words) in wrong_capabilities() {
        let request = proto::ControllerExpandVolumeRequest { volume_capability: Some(capability), ..good() };
        assert_refused(client.controller_expand_volume(request).await, words);
    }
    let gone = proto::ControllerExpandVolumeRequest { volume_id: text("gone"), ..good() };
    assert_code(client.controller_expand_volume(gone).await, Code::NotFound, "volume gone");
    let endless = proto::ControllerExpandVolumeRequest { capacity_range: range(i64::MAX, 0), ..good() };
    assert_code(client.controller_expand_volume(endless).await, Code::OutOfRange, &id);
}

#[tokio::test]
async fn snapshots() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let (id, other) = (driver.volume("v").await, driver.volume("w").await);
    let good = || proto::CreateSnapshotRequest { source_volume_id: id.clone(), name: text("s"), ..Default::default() };
    for (request, field) in [
        (proto::CreateSnapshotRequest { source_volume_id: text(""), ..good() }, "source_volume_id is missing"),
        (proto::CreateSnapshotRequest { source_volume_id: text("a\nb"), ..good() }, "source_volume_id"),
        (proto::CreateSnapshotRequest { name: text(""), ..good() }, "name is missing"),
        (proto::CreateSnapshotRequest { name: text("\0"), ..good() }, "name"),
        (
            proto::CreateSnapshotRequest { accessibility_requirements: topology(&[("", "x")]), ..good() },
            "accessibility_requirements.requisite[0].segments",
        ),
    ] {
        assert_refused(client.create_snapshot(request).await, field);
    }
    let gone = proto::CreateSnapshotRequest { source_volume_id: text("gone"), ..good() };
    assert_code(client.create_snapshot(gone).await, Code::NotFound, "volume gone");
    client.create_snapshot(good()).await.unwrap();
    let taken = proto::CreateSnapshotRequest { source_volume_id: other, ..good() };
    assert_code(client.create_snapshot(taken).await, Code::AlreadyExists, "\"s\"");

    let delete = |snapshot_id| proto::DeleteSnapshotRequest { snapshot_id, ..Default::default() };
    assert_refused(client.delete_snapshot(delete(text(""))).await, "snapshot_id is missing");
    client.delete_snapshot(delete(text("gone"))).await.unwrap();
    let get = |snapshot_id| proto::GetSnapshotRequest { snapshot_id, ..Default::default() };
    assert_refused(client.get_snapshot(get(text(""))).await, "snapshot_id is missing");
    assert_code(client.get_snapshot(get(text("gone"))).await, Code::NotFound, "snapshot gone");
}

#[tokio::test]
async fn what_is_not_advertised_is_unimplemented() {
    let driver = Driver::in_memory().await;
    let modify = proto::ControllerModifyVolumeRequest::default();
    assert_code(driver.controller().controller_modify_volume(modify).await, Code::Unimplemented, "");
}
