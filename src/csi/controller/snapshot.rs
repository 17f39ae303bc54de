//! Snapshots: taken, removed, listed, looked at.

use super::{ControllerService, snapshots};
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request, response};
use crate::error::Result;
use crate::model::{Snapshot, SnapshotFilter, SnapshotId, SnapshotSpec};

/// CreateSnapshot: takes a snapshot, or finds the one that an earlier call of this name took.
pub(super) async fn create(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::CreateSnapshotRequest,
) -> Result<proto::CreateSnapshotResponse> {
    let spec = SnapshotSpec {
        name: request::name("name", message.name)?,
        source: request::id("source_volume_id", &message.source_volume_id)?,
        parameters: message.parameters,
        topology: request::topology_requirement(message.accessibility_requirements)?,
        secrets: request::secrets(message.secrets),
    };
    let claim = Claim::snapshot_name(&spec.name);
    let snapshot = service
        .run(rpc, claim, "create snapshot", |provider, call| async move {
            snapshots(provider.as_ref())?.create_snapshot(&call, &spec).await
        })
        .await?;
    Ok(proto::CreateSnapshotResponse { snapshot: Some(shown(service, snapshot)) })
}

/// DeleteSnapshot: a snapshot that is not there is success.
pub(super) async fn delete(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::DeleteSnapshotRequest,
) -> Result<proto::DeleteSnapshotResponse> {
    let id: SnapshotId = request::id("snapshot_id", &message.snapshot_id)?;
    service
        .run(rpc, Claim::snapshot(&id), "delete snapshot", |provider, call| async move {
            snapshots(provider.as_ref())?.delete_snapshot(&call, &id).await
        })
        .await?;
    Ok(proto::DeleteSnapshotResponse {})
}

/// ListSnapshots: a filter that matches nothing gives an empty list.
pub(super) async fn list(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ListSnapshotsRequest,
) -> Result<proto::ListSnapshotsResponse> {
    let page = request::page(message.max_entries, message.starting_token)?;
    let filter = SnapshotFilter {
        id: request::optional_id("snapshot_id", &message.snapshot_id)?,
        source: request::optional_id("source_volume_id", &message.source_volume_id)?,
    };
    let page = service
        .run(rpc, Claim::none(), "list snapshots", |provider, call| async move {
            snapshots(provider.as_ref())?.snapshots(&call, &filter, &page).await
        })
        .await?;
    let entry = |snapshot| proto::list_snapshots_response::Entry { snapshot: Some(shown(service, snapshot)) };
    Ok(proto::ListSnapshotsResponse {
        entries: page.items.into_iter().map(entry).collect(),
        next_token: page.next.unwrap_or_default(),
    })
}

/// GetSnapshot.
pub(super) async fn get(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::GetSnapshotRequest,
) -> Result<proto::GetSnapshotResponse> {
    let id: SnapshotId = request::id("snapshot_id", &message.snapshot_id)?;
    let snapshot = service
        .run(rpc, Claim::none(), "get snapshot", |provider, call| async move {
            snapshots(provider.as_ref())?.snapshot(&call, &id).await
        })
        .await?;
    Ok(proto::GetSnapshotResponse { snapshot: Some(shown(service, snapshot)) })
}

fn shown(service: &ControllerService, snapshot: Snapshot) -> proto::Snapshot {
    response::snapshot(snapshot, service.abilities.snapshot_topology)
}
