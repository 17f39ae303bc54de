//! How much room is left.

use super::ControllerService;
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request};
use crate::error::{Error, Result};
use crate::model::Bytes;

/// GetCapacity: for volumes that can never be made there is no room.
pub(super) async fn get(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::GetCapacityRequest,
) -> Result<proto::GetCapacityResponse> {
    let capabilities = request::optional_capabilities("volume_capabilities", message.volume_capabilities)?;
    let topology = request::topology("accessible_topology", message.accessible_topology)?;
    let parameters = message.parameters;
    if capabilities.iter().any(|capability| service.abilities.objection(capability).is_some()) {
        return Ok(proto::GetCapacityResponse::default());
    }
    let room = service
        .run(rpc, Claim::none(), "get capacity", |provider, call| async move {
            let capacity = provider
                .capacity()
                .ok_or_else(|| Error::unsupported("this driver does not know how much room is left (GET_CAPACITY)"))?;
            capacity.room(&call, &parameters, topology.as_ref()).await
        })
        .await?;
    Ok(proto::GetCapacityResponse {
        available_capacity: room.available.to_wire(),
        maximum_volume_size: room.largest.map(Bytes::to_wire),
        minimum_volume_size: room.smallest.map(Bytes::to_wire),
    })
}
