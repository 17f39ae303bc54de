//! Volumes: made, removed, looked at, and asked what they can be used for.

use super::ControllerService;
use crate::csi::abilities::Abilities;
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request, response};
use crate::error::{Error, Result};
use crate::model::{ContentSource, VolumeId, VolumeSpec};

/// CreateVolume: makes a volume, or finds the one that an earlier call of this name made.
pub(super) async fn create(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::CreateVolumeRequest,
) -> Result<proto::CreateVolumeResponse> {
    let spec = spec(&service.abilities, message)?;
    let claim = Claim::volume_name(&spec.name);
    let volume = service
        .run(rpc, claim, "create volume", |provider, call| async move { provider.create_volume(&call, &spec).await })
        .await?;
    Ok(proto::CreateVolumeResponse { volume: Some(response::volume(volume)) })
}

/// Reads what is wanted, and refuses what this driver never does.
fn spec(abilities: &Abilities, message: proto::CreateVolumeRequest) -> Result<VolumeSpec> {
    let name = request::name("name", message.name)?;
    let capabilities = request::capabilities("volume_capabilities", message.volume_capabilities)?;
    for capability in &capabilities {
        abilities.check("volume_capabilities", capability)?;
    }
    let source = request::source(message.volume_content_source)?;
    match source {
        Some(ContentSource::Snapshot(_)) if !abilities.snapshots => {
            return Err(Error::invalid("volume_content_source.snapshot: this driver has no snapshots"));
        }
        Some(ContentSource::Volume(_)) if !abilities.clone => {
            return Err(Error::invalid("volume_content_source.volume: this driver does not clone volumes"));
        }
        _ => {}
    }
    request::no_mutable_parameters(&message.mutable_parameters)?;
    Ok(VolumeSpec {
        name,
        size: request::size(message.capacity_range)?,
        source,
        capabilities,
        parameters: message.parameters,
        mutable_parameters: message.mutable_parameters,
        topology: request::topology_requirement(message.accessibility_requirements)?,
        secrets: request::secrets(message.secrets),
    })
}

/// DeleteVolume: a volume that is not there is success.
pub(super) async fn delete(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::DeleteVolumeRequest,
) -> Result<proto::DeleteVolumeResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    service
        .run(rpc, Claim::volume(&id), "delete volume", |provider, call| async move {
            provider.delete_volume(&call, &id).await
        })
        .await?;
    Ok(proto::DeleteVolumeResponse {})
}

/// ControllerGetVolume: a volume, and where it is published.
pub(super) async fn get(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ControllerGetVolumeRequest,
) -> Result<proto::ControllerGetVolumeResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    let status = service
        .run(rpc, Claim::none(), "get volume", |provider, call| async move { provider.volume(&call, &id).await })
        .await?;
    Ok(proto::ControllerGetVolumeResponse {
        volume: Some(response::volume(status.volume)),
        status: Some(proto::controller_get_volume_response::VolumeStatus {
            published_node_ids: status.published.into_iter().map(String::from).collect(),
        }),
    })
}

/// ValidateVolumeCapabilities: whether a volume can be used in all of these ways. That it cannot is an answer, no error.
/// Only what was really looked at is confirmed: the capabilities and the parameters, not the context.
pub(super) async fn validate(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ValidateVolumeCapabilitiesRequest,
) -> Result<proto::ValidateVolumeCapabilitiesResponse> {
    let id: VolumeId = request::id("volume_id", &message.volume_id)?;
    let wanted = message.volume_capabilities.clone();
    let capabilities = request::capabilities("volume_capabilities", message.volume_capabilities)?;
    let parameters = message.parameters.clone();
    let objection = capabilities.iter().find_map(|capability| service.abilities.objection(capability));
    let verdict = service
        .run(rpc, Claim::none(), "validate volume capabilities", |provider, call| async move {
            provider.validate(&call, &id, &capabilities, &parameters).await
        })
        .await?;
    let objection = objection
        .map(str::to_owned)
        .or(verdict.err())
        .or_else(|| request::no_mutable_parameters(&message.mutable_parameters).err().map(|error| error.to_string()));
    Ok(match objection {
        Some(message) => proto::ValidateVolumeCapabilitiesResponse { confirmed: None, message },
        None => proto::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(proto::validate_volume_capabilities_response::Confirmed {
                volume_capabilities: wanted,
                parameters: message.parameters,
                ..Default::default()
            }),
            message: String::new(),
        },
    })
}
