//! The life of a volume, as an orchestrator sees it.

use crate::driver::{Driver, create, gib, publish};
use fuxi_csi::csi::proto;
use proto::controller_service_capability::Type as Capability;
use proto::controller_service_capability::rpc::Type as Rpc;
use proto::volume_content_source::{SnapshotSource, Type as SourceType};
use std::collections::BTreeSet;
use tonic::Code;

#[tokio::test]
async fn the_driver_says_who_it_is() {
    let driver = Driver::in_memory().await;
    let mut client = driver.identity();
    let info = client.get_plugin_info(proto::GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.name.as_str(), info.vendor_version.as_str()), ("memory.test", "1.0"));
    assert_eq!(client.probe(proto::ProbeRequest {}).await.unwrap().into_inner().ready, Some(true));
    let plugin = client.get_plugin_capabilities(proto::GetPluginCapabilitiesRequest {}).await.unwrap().into_inner();
    assert_eq!(plugin.capabilities.len(), 4);
}

#[tokio::test]
async fn each_capability_is_advertised_once() {
    let driver = Driver::in_memory().await;
    let answer = driver.controller().controller_get_capabilities(proto::ControllerGetCapabilitiesRequest {}).await;
    let all: Vec<Rpc> = answer
        .unwrap()
        .into_inner()
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type.unwrap() {
            Capability::Rpc(rpc) => rpc.r#type(),
        })
        .collect();
    assert_eq!(all.iter().map(|rpc| *rpc as i32).collect::<BTreeSet<_>>().len(), all.len());
    assert!(!all.contains(&Rpc::Unknown) && !all.contains(&Rpc::ModifyVolume));
    assert_eq!(all.len(), 15);
}

#[tokio::test]
async fn a_volume_lives_its_whole_life_and_every_step_can_be_repeated() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    for _ in 0..2 {
        let volume = client.create_volume(create("v")).await.unwrap().into_inner().volume.unwrap();
        assert_eq!((volume.volume_id.as_str(), volume.capacity_bytes), ("volume-1", 1 << 30));
        assert_eq!(volume.accessible_topology.len(), 1);
    }
    let id = "volume-1".to_owned();
    let mut contexts = Vec::new();
    for _ in 0..2 {
        let published = client.controller_publish_volume(publish(&id)).await.unwrap().into_inner();
        contexts.push(published.publish_context);
    }
    assert_eq!(contexts[0], contexts[1]);
    let elsewhere = proto::ControllerPublishVolumeRequest { node_id: "m".to_owned(), ..publish(&id) };
    let status = client.controller_publish_volume(elsewhere).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let read_only = proto::ControllerPublishVolumeRequest { readonly: true, ..publish(&id) };
    assert_eq!(client.controller_publish_volume(read_only).await.unwrap_err().code(), Code::AlreadyExists);

    let delete = || proto::DeleteVolumeRequest { volume_id: id.clone(), ..Default::default() };
    assert_eq!(client.delete_volume(delete()).await.unwrap_err().code(), Code::FailedPrecondition);
    for _ in 0..2 {
        let expand = proto::ControllerExpandVolumeRequest {
            volume_id: id.clone(),
            capacity_range: gib(3),
            ..Default::default()
        };
        let expanded = client.controller_expand_volume(expand).await.unwrap().into_inner();
        assert_eq!((expanded.capacity_bytes, expanded.node_expansion_required), (3 << 30, true));
    }
    let mut snapshots = BTreeSet::new();
    for _ in 0..2 {
        let take =
            proto::CreateSnapshotRequest { source_volume_id: id.clone(), name: "s".to_owned(), ..Default::default() };
        let snapshot = client.create_snapshot(take).await.unwrap().into_inner().snapshot.unwrap();
        assert!(snapshot.ready_to_use && snapshot.creation_time.is_some());
        snapshots.insert(snapshot.snapshot_id);
    }
    assert_eq!(snapshots.len(), 1);
    let snapshot_id = snapshots.pop_first().unwrap();
    let source = proto::VolumeContentSource {
        r#type: Some(SourceType::Snapshot(SnapshotSource { snapshot_id: snapshot_id.clone() })),
    };
    let restore = proto::CreateVolumeRequest { volume_content_source: Some(source.clone()), ..create("restored") };
    let restored = client.create_volume(restore).await.unwrap().into_inner().volume.unwrap();
    assert_eq!((restored.content_source, restored.capacity_bytes), (Some(source), 3 << 30));

    for node_id in ["n", "n", ""] {
        let request = proto::ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            node_id: node_id.to_owned(),
            ..Default::default()
        };
        client.controller_unpublish_volume(request).await.unwrap();
    }
    for _ in 0..2 {
        let delete = proto::DeleteSnapshotRequest { snapshot_id: snapshot_id.clone(), ..Default::default() };
        client.delete_snapshot(delete).await.unwrap();
    }
    for _ in 0..2 {
        client.delete_volume(delete()).await.unwrap();
    }
    let get = proto::ControllerGetVolumeRequest { volume_id: id };
    assert_eq!(client.controller_get_volume(get).await.unwrap_err().code(), Code::NotFound);
}
