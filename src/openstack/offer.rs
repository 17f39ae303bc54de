//! What a cloud offers to its users: volume types, share types and zones. For `check`, which tells people.

use super::client::{Client, Route};
use super::manila;
use super::objects::Metadata;
use crate::call::Call;
use crate::error::Result;
use serde::Deserialize;

/// A volume type, as its users see it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VolumeType {
    /// Its name.
    pub name: String,
}

#[derive(Deserialize)]
struct TypesBody {
    volume_types: Vec<VolumeType>,
}

/// The volume types that this project may use (Cinder).
///
/// # Errors
/// See [`Client`].
pub async fn volume_types(cinder: &Client, call: &Call) -> Result<Vec<VolumeType>> {
    Ok(cinder.get::<TypesBody>(call, Route::new("/types")).await?.volume_types)
}

/// A share type, as its users see it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ShareType {
    /// Its name.
    pub name: String,
    #[serde(default)]
    extra_specs: Metadata,
}

impl ShareType {
    /// Whether shares of it are in share networks.
    #[must_use]
    pub fn needs_share_network(&self) -> bool {
        self.says("driver_handles_share_servers")
    }

    /// Whether shares of it have snapshots.
    #[must_use]
    pub fn has_snapshots(&self) -> bool {
        self.says("snapshot_support")
    }

    fn says(&self, key: &str) -> bool {
        self.extra_specs.get(key).is_some_and(|value| value.to_ascii_lowercase().ends_with("true"))
    }
}

#[derive(Deserialize)]
struct ShareTypesBody {
    share_types: Vec<ShareType>,
}

/// The share types that this project may use (Manila).
///
/// # Errors
/// See [`Client`].
pub async fn share_types(manila: &Client, call: &Call) -> Result<Vec<ShareType>> {
    let route = Route::new("/types").microversion(manila::LOWEST);
    Ok(manila.get::<ShareTypesBody>(call, route).await?.share_types)
}

#[derive(Deserialize)]
struct ZonesBody {
    #[serde(rename = "availabilityZoneInfo")]
    zones: Vec<ZoneBody>,
}

#[derive(Deserialize)]
struct ZoneBody {
    #[serde(rename = "zoneName")]
    name: String,
    #[serde(rename = "zoneState")]
    state: ZoneState,
}

#[derive(Deserialize)]
struct ZoneState {
    available: bool,
}

/// The zones of a service that can be used (Cinder and Nova answer alike).
///
/// # Errors
/// See [`Client`].
pub async fn zones(service: &Client, call: &Call) -> Result<Vec<String>> {
    let body: ZonesBody = service.get(call, Route::new("/os-availability-zone")).await?;
    Ok(body.zones.into_iter().filter(|zone| zone.state.available).map(|zone| zone.name).collect())
}
