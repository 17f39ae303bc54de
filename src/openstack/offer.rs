//! What a cloud offers to its users: volume types and zones. For `check`, which tells people.

use super::client::{Client, Route};
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
