//! Volumes brought to nodes, and taken from them.

use super::ControllerService;
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request};
use crate::error::{Error, Result};
use crate::model::{NodeId, VolumeId};

/// ControllerPublishVolume: makes a volume reachable from a node.
pub(super) async fn publish(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ControllerPublishVolumeRequest,
) -> Result<proto::ControllerPublishVolumeResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    let node: NodeId = request::id("node_id", &message.node_id)?;
    let capability = request::capability("volume_capability", message.volume_capability)?;
    service.abilities.check("volume_capability", &capability)?;
    let (read_only, context) = (message.readonly, message.volume_context);
    if read_only && !service.abilities.read_only_publish {
        return Err(Error::invalid("readonly is true, but this driver does not have PUBLISH_READONLY"));
    }
    let connection = service
        .run(rpc, Claim::attachment(&id, &node), "publish volume", |provider, call| async move {
            provider.publish_known(&call, &id, &context, &node, &capability, read_only).await
        })
        .await?;
    Ok(proto::ControllerPublishVolumeResponse { publish_context: connection.to_context()? })
}

/// ControllerUnpublishVolume: the opposite; from all nodes where none is named.
pub(super) async fn unpublish(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ControllerUnpublishVolumeRequest,
) -> Result<proto::ControllerUnpublishVolumeResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    let node: Option<NodeId> = request::optional_id("node_id", &message.node_id)?;
    let claim = match &node {
        Some(node) => Claim::attachment(&id, node),
        None => Claim::volume(&id),
    };
    service
        .run(rpc, claim, "unpublish volume", |provider, call| async move {
            provider.unpublish(&call, &id, node.as_ref()).await
        })
        .await?;
    Ok(proto::ControllerUnpublishVolumeResponse {})
}
