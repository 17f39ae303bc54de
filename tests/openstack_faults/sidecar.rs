//! The driver's RPCs as an orchestrator's sidecars call them.

use crate::driver::Driver;
use crate::proto;
use crate::proto::controller_client::ControllerClient;
use crate::standin::Standin;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// One gibibyte.
pub(crate) const GIB: i64 = 1 << 30;

/// The deadline of an RPC where the test has no other wish.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// One caller with a deadline. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sidecar {
    client: ControllerClient<Channel>,
    pub(crate) deadline: Duration,
}

/// As a file system for one writer.
pub(crate) fn mounted() -> proto::VolumeCapability {
    capability(proto::volume_capability::access_mode::Mode::SingleNodeWriter, false)
}

/// As a raw block device, in this mode.
pub(crate) fn capability(mode: proto::volume_capability::access_mode::Mode, block: bool) -> proto::VolumeCapability {
    use proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
    proto::VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume::default())
        }),
    }
}

/// A request for an empty volume; tests change what they are about.
pub(crate) fn create_request(name: &str, gib: i64) -> proto::CreateVolumeRequest {
    proto::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(proto::CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 }),
        volume_capabilities: vec![mounted()],
        ..Default::default()
    }
}

/// Filled with a snapshot or a backup.
pub(crate) fn from_snapshot(id: &str) -> Option<proto::VolumeContentSource> {
    use proto::volume_content_source::{SnapshotSource, Type};
    Some(proto::VolumeContentSource { r#type: Some(Type::Snapshot(SnapshotSource { snapshot_id: id.to_owned() })) })
}

/// Filled with another volume.
pub(crate) fn from_volume(id: &str) -> Option<proto::VolumeContentSource> {
    use proto::volume_content_source::{Type, VolumeSource};
    Some(proto::VolumeContentSource { r#type: Some(Type::Volume(VolumeSource { volume_id: id.to_owned() })) })
}

impl Sidecar {
    pub(crate) fn new(driver: &Driver) -> Self {
        Self { client: driver.controller(), deadline: DEADLINE }
    }

    pub(crate) fn with_deadline(&self, deadline: Duration) -> Self {
        Self { client: self.client.clone(), deadline }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    pub(crate) async fn create_as(&self, request: proto::CreateVolumeRequest) -> Result<proto::Volume, Status> {
        let answer = self.client.clone().create_volume(self.request(request)).await?.into_inner();
        Ok(answer.volume.expect("CreateVolume answers with a volume"))
    }

    pub(crate) async fn create(&self, name: &str, gib: i64) -> Result<proto::Volume, Status> {
        self.create_as(create_request(name, gib)).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = proto::DeleteVolumeRequest { volume_id: id.to_owned(), ..Default::default() };
        self.client.clone().delete_volume(self.request(request)).await.map(drop)
    }

    pub(crate) async fn publish(&self, id: &str, node: &str) -> Result<HashMap<String, String>, Status> {
        self.publish_as(id, node, mounted()).await
    }

    pub(crate) async fn publish_as(
        &self,
        id: &str,
        node: &str,
        capability: proto::VolumeCapability,
    ) -> Result<HashMap<String, String>, Status> {
        let request = proto::ControllerPublishVolumeRequest {
            volume_id: id.to_owned(),
            node_id: node.to_owned(),
            volume_capability: Some(capability),
            ..Default::default()
        };
        let answer = self.client.clone().controller_publish_volume(self.request(request)).await?;
        Ok(answer.into_inner().publish_context.into_iter().collect())
    }

    pub(crate) async fn unpublish(&self, id: &str, node: &str) -> Result<(), Status> {
        let request = proto::ControllerUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            node_id: node.to_owned(),
            ..Default::default()
        };
        self.client.clone().controller_unpublish_volume(self.request(request)).await.map(drop)
    }

    pub(crate) async fn expand(&self, id: &str, gib: i64) -> Result<i64, Status> {
        let request = proto::ControllerExpandVolumeRequest {
            volume_id: id.to_owned(),
            capacity_range: Some(proto::CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 }),
            volume_capability: Some(mounted()),
            ..Default::default()
        };
        Ok(self.client.clone().controller_expand_volume(self.request(request)).await?.into_inner().capacity_bytes)
    }

    /// A snapshot, or with `type: backup` a backup.
    pub(crate) async fn snapshot(&self, name: &str, volume: &str, backup: bool) -> Result<proto::Snapshot, Status> {
        let mut request = proto::CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            ..Default::default()
        };
        if backup {
            request.parameters.insert("type".to_owned(), "backup".to_owned());
        }
        let answer = self.client.clone().create_snapshot(self.request(request)).await?.into_inner();
        Ok(answer.snapshot.expect("CreateSnapshot answers with a snapshot"))
    }

    /// The same until it is ready to use, as the snapshotter does.
    pub(crate) async fn ready_snapshot(
        &self,
        name: &str,
        volume: &str,
        backup: bool,
    ) -> Result<proto::Snapshot, Status> {
        let begun = Instant::now();
        loop {
            let snapshot = self.snapshot(name, volume, backup).await?;
            if snapshot.ready_to_use {
                return Ok(snapshot);
            }
            if begun.elapsed() > self.deadline {
                return Err(Status::deadline_exceeded(format!("snapshot {name} does not become ready")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = proto::DeleteSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() };
        self.client.clone().delete_snapshot(self.request(request)).await.map(drop)
    }

    pub(crate) async fn list(&self, most: i32, token: &str) -> Result<proto::ListVolumesResponse, Status> {
        let request = proto::ListVolumesRequest { max_entries: most, starting_token: token.to_owned() };
        Ok(self.client.clone().list_volumes(self.request(request)).await?.into_inner())
    }

    pub(crate) async fn list_snapshots(
        &self,
        request: proto::ListSnapshotsRequest,
    ) -> Result<proto::ListSnapshotsResponse, Status> {
        Ok(self.client.clone().list_snapshots(self.request(request)).await?.into_inner())
    }

    pub(crate) async fn get(&self, id: &str) -> Result<proto::ControllerGetVolumeResponse, Status> {
        let request = proto::ControllerGetVolumeRequest { volume_id: id.to_owned() };
        Ok(self.client.clone().controller_get_volume(self.request(request)).await?.into_inner())
    }

    pub(crate) async fn validate(&self, id: &str) -> Result<(), Status> {
        let request = proto::ValidateVolumeCapabilitiesRequest {
            volume_id: id.to_owned(),
            volume_capabilities: vec![mounted()],
            ..Default::default()
        };
        let answer = self.client.clone().validate_volume_capabilities(self.request(request)).await?.into_inner();
        if answer.confirmed.is_none() {
            return Err(Status::failed_precondition(format!("not confirmed: {}", answer.message)));
        }
        Ok(())
    }

    pub(crate) async fn capacity(&self) -> Result<i64, Status> {
        let request = proto::GetCapacityRequest::default();
        Ok(self.client.clone().get_capacity(self.request(request)).await?.into_inner().available_capacity)
    }
}

/// Repeats an RPC until it succeeds, as the sidecars do; a driver that is gone is started again, as the kubelet does.
/// Tells how many attempts it took.
///
/// # Errors
/// The last status, when the patience is over.
pub(crate) async fn until_done<T>(
    standin: &Standin,
    driver: &mut Driver,
    patience: Duration,
    mut rpc: impl AsyncFnMut(&Sidecar) -> Result<T, Status>,
) -> Result<(T, u32), String> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(20);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let status = match rpc(&Sidecar::new(driver)).await {
            Ok(value) => return Ok((value, attempts)),
            Err(status) => status,
        };
        if begun.elapsed() > patience {
            return Err(format!("after {attempts} attempts: {:?}: {}", status.code(), status.message()));
        }
        if driver.is_gone() {
            driver.restart(standin).await;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}
