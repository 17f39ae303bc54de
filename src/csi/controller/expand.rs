//! Volumes made larger.

use super::ControllerService;
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request};
use crate::error::{Error, Result};
use crate::model::VolumeId;

/// ControllerExpandVolume.
pub(super) async fn expand(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ControllerExpandVolumeRequest,
) -> Result<proto::ControllerExpandVolumeResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    let size = request::required_size(message.capacity_range)?;
    let capability = request::optional_capability("volume_capability", message.volume_capability)?;
    if let Some(capability) = &capability {
        service.abilities.check("volume_capability", capability)?;
    }
    let expanded = service
        .run(rpc, Claim::volume(&id), "expand volume", |provider, call| async move {
            let expand = provider
                .expand()
                .ok_or_else(|| Error::unsupported("this driver cannot expand volumes (EXPAND_VOLUME)"))?;
            expand.expand_volume(&call, &id, size, capability.as_ref()).await
        })
        .await?;
    Ok(proto::ControllerExpandVolumeResponse {
        capacity_bytes: expanded.size.to_wire(),
        node_expansion_required: expanded.node_step,
    })
}
