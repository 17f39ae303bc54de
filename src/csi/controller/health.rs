//! What is wrong with volumes, as OpenStack sees it.

use super::ControllerService;
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request, response};
use crate::error::Result;
use crate::model::VolumeId;

/// ControllerGetVolumeHealth.
pub(super) async fn get(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ControllerGetVolumeHealthRequest,
) -> Result<proto::ControllerGetVolumeHealthResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    let status = service
        .run(rpc, Claim::none(), "get volume health", |provider, call| async move { provider.volume(&call, &id).await })
        .await?;
    Ok(proto::ControllerGetVolumeHealthResponse {
        volume_health: Some(response::health(status.volume.id, status.health)),
    })
}

/// ControllerListVolumeHealth: the volumes of a page that something is wrong with, which may be none of them.
pub(super) async fn list(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ControllerListVolumeHealthRequest,
) -> Result<proto::ControllerListVolumeHealthResponse> {
    let page = request::page(message.max_entries, message.starting_token)?;
    let page =
        service
            .run(rpc, Claim::none(), "list volume health", |provider, call| async move {
                provider.volumes(&call, &page).await
            })
            .await?;
    let abnormal = page.items.into_iter().filter(|status| !status.health.is_empty());
    Ok(proto::ControllerListVolumeHealthResponse {
        entries: abnormal.map(|status| response::health(status.volume.id, status.health)).collect(),
        next_token: page.next.unwrap_or_default(),
    })
}
