//! The Controller service: one file per noun. This file lists the methods; each of them begins the RPC and hands it to
//! the function that tells its story.

mod capacity;
mod expand;
mod health;
mod list;
mod publish;
mod snapshot;
mod volume;

use crate::call::Call;
use crate::csi::abilities::Abilities;
use crate::csi::operation::{Claim, Operations};
use crate::csi::rpc::{Rpc, answer};
use crate::csi::{Answer, proto};
use crate::error::{Error, Result};
use crate::provider::{Provider, Snapshots};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use tonic::{Request, async_trait};

/// The Controller service over one provider.
#[derive(Clone)]
pub struct ControllerService {
    provider: Arc<dyn Provider>,
    abilities: Abilities,
    operations: Operations,
}

impl fmt::Debug for ControllerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerService").field("abilities", &self.abilities).finish_non_exhaustive()
    }
}

impl ControllerService {
    /// The service over this provider.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, operations: Operations) -> Self {
        let abilities = Abilities::of(provider.as_ref());
        Self { provider, abilities, operations }
    }

    /// Runs the provider's part of an RPC as an operation.
    async fn run<T, W, F>(&self, rpc: &Rpc, claim: Claim, doing: &'static str, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<dyn Provider>, Call) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let provider = Arc::clone(&self.provider);
        self.operations.run(rpc, claim, doing, move |call| work(provider, call)).await
    }
}

/// The provider's snapshots.
fn snapshots(provider: &dyn Provider) -> Result<&dyn Snapshots> {
    provider.snapshots().ok_or_else(|| Error::unsupported("this driver has no snapshots (CREATE_DELETE_SNAPSHOT)"))
}

macro_rules! controller {
    ($($method:ident($request:ident) -> $response:ident = $story:path;)*) => {
        #[async_trait]
        impl proto::controller_server::Controller for ControllerService {
            $(async fn $method(&self, request: Request<proto::$request>) -> Answer<proto::$response> {
                let (rpc, message) = Rpc::begin(request);
                answer($story(self, &rpc, message).await)
            })*
        }
    };
}

controller! {
    create_volume(CreateVolumeRequest) -> CreateVolumeResponse = volume::create;
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse = volume::delete;
    controller_get_volume(ControllerGetVolumeRequest) -> ControllerGetVolumeResponse = volume::get;
    validate_volume_capabilities(ValidateVolumeCapabilitiesRequest) -> ValidateVolumeCapabilitiesResponse
        = volume::validate;
    controller_publish_volume(ControllerPublishVolumeRequest) -> ControllerPublishVolumeResponse = publish::publish;
    controller_unpublish_volume(ControllerUnpublishVolumeRequest) -> ControllerUnpublishVolumeResponse
        = publish::unpublish;
    list_volumes(ListVolumesRequest) -> ListVolumesResponse = list::volumes;
    controller_list_volume_health(ControllerListVolumeHealthRequest) -> ControllerListVolumeHealthResponse
        = health::list;
    controller_get_volume_health(ControllerGetVolumeHealthRequest) -> ControllerGetVolumeHealthResponse = health::get;
    get_capacity(GetCapacityRequest) -> GetCapacityResponse = capacity::get;
    controller_get_capabilities(ControllerGetCapabilitiesRequest) -> ControllerGetCapabilitiesResponse = capabilities;
    controller_expand_volume(ControllerExpandVolumeRequest) -> ControllerExpandVolumeResponse = expand::expand;
    create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse = snapshot::create;
    delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse = snapshot::delete;
    list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse = snapshot::list;
    get_snapshot(GetSnapshotRequest) -> GetSnapshotResponse = snapshot::get;
}

async fn capabilities(
    service: &ControllerService,
    _rpc: &Rpc,
    _request: proto::ControllerGetCapabilitiesRequest,
) -> Result<proto::ControllerGetCapabilitiesResponse> {
    Ok(proto::ControllerGetCapabilitiesResponse { capabilities: service.abilities.of_controller() })
}
