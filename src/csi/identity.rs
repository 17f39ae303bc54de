//! The Identity service: who the driver is. It never waits for anything.

use crate::csi::abilities::Abilities;
use crate::csi::rpc::{Rpc, answer};
use crate::csi::{Answer, proto};
use crate::error::{Error, Result};
use crate::model::StringMap;
use tonic::{Request, async_trait};

/// The Identity service.
#[derive(Debug, Clone)]
pub struct IdentityService {
    name: DriverName,
    manifest: StringMap,
    abilities: Abilities,
}

impl IdentityService {
    /// The service of a driver with this name and these abilities.
    #[must_use]
    pub fn new(name: DriverName, manifest: StringMap, abilities: Abilities) -> Self {
        Self { name, manifest, abilities }
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
            name: self.name.0.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
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

/// The name of a driver, such as `cinder.fuxi.openstack.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverName(String);

impl DriverName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DriverName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let fits = bytes.len() <= 63
            && is_edge(bytes.first())
            && is_edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(format!(
                "{text:?} is not a driver name: at most 63 letters, digits, dots and dashes, the first and the last of \
                 them a letter or a digit"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DriverName;

    #[test]
    fn driver_names_are_domain_names() {
        for good in ["cinder.csi.openstack.org", "a", "A-1.b", &"x".repeat(63)] {
            assert!(good.parse::<DriverName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a_b", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad}");
        }
    }
}
