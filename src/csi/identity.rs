//! The Identity service: who the driver is. It never waits for anything.

use crate::csi::abilities::Abilities;
use crate::csi::rpc::{Rpc, answer};
use crate::csi::{Answer, proto};
use crate::model::StringMap;
use tonic::{Request, async_trait};

/// The Identity service.
#[derive(Debug, Clone)]
pub struct IdentityService {
    name: String,
    version: String,
    manifest: StringMap,
    abilities: Abilities,
}

impl IdentityService {
    /// The service of a driver with this name and version and these abilities.
    #[must_use]
    pub fn new(name: String, version: String, manifest: StringMap, abilities: Abilities) -> Self {
        Self { name, version, manifest, abilities }
    }
}

#[async_trait]
impl proto::identity_server::Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        request: Request<proto::GetPluginInfoRequest>,
    ) -> Answer<proto::GetPluginInfoResponse> {
        let _ = Rpc::begin(request);
        answer(Ok(proto::GetPluginInfoResponse {
            name: self.name.clone(),
            vendor_version: self.version.clone(),
            manifest: self.manifest.clone(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        request: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Answer<proto::GetPluginCapabilitiesResponse> {
        let _ = Rpc::begin(request);
        answer(Ok(proto::GetPluginCapabilitiesResponse { capabilities: self.abilities.of_plugin() }))
    }

    /// Ready as soon as it answers. Whether OpenStack can be reached is told by `/readyz`: an outage of the cloud is no
    /// reason to restart the driver.
    async fn probe(&self, request: Request<proto::ProbeRequest>) -> Answer<proto::ProbeResponse> {
        let _ = Rpc::begin(request);
        answer(Ok(proto::ProbeResponse { ready: Some(true) }))
    }
}
