//! What a cloud offers to its users: volume types, share types and zones. For `check`, which tells people.

use super::client::{Client, Route};
use super::manila;
use crate::call::Call;
use crate::error::Result;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

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
    /// Mostly text; where an operator set nothing, Manila tells its default, which is a truth value.
    #[serde(default)]
    extra_specs: BTreeMap<String, Value>,
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
        match self.extra_specs.get(key) {
            // Manila compares such a spec as `<is> True`.
            Some(Value::String(text)) => text.to_ascii_lowercase().ends_with("true"),
            Some(value) => *value == Value::Bool(true),
            None => false,
        }
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
