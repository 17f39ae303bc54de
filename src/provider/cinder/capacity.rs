//! How much more can be made: what the quota leaves, and what the pools have where the credential may see them.

use super::parameters::VolumeParameters;
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::model::{StringMap, Topology};
use crate::openstack::cinder::Pool;
use crate::openstack::objects::Quota;
use crate::provider::size::{LARGEST_GIB, room_of};
use crate::provider::{Capacity, Room};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

#[async_trait]
impl Capacity for CinderProvider {
    async fn room(&self, call: &Call, parameters: &StringMap, topology: Option<&Topology>) -> Result<Room> {
        self.measure(call, parameters, topology).await.map_err(|error| error.during("see how much room is left"))
    }
}

impl CinderProvider {
    async fn measure(&self, call: &Call, parameters: &StringMap, topology: Option<&Topology>) -> Result<Room> {
        let parameters = VolumeParameters::parse(&self.names, parameters)?;
        // GetCapacity carries no secret, so it can only be about the default cloud.
        let cloud = self.clouds.of_handle("")?;
        let zone = self.zones.zone_of(topology);
        if let (Some(wanted), Some(zone)) = (&parameters.availability, zone)
            && wanted != zone
            && !self.zones.ignore_volume_zone
        {
            // The class puts its volumes into another zone.
            return room_of(0, Some(0));
        }
        let quotas = quotas(call, cloud).await?;
        let pools = visible_pools(call, cloud).await?.map(|pools| space_of(&pools));
        let left = quota_left(&quotas, parameters.volume_type.as_deref());
        let per_volume = quotas.get("per_volume_gigabytes").and_then(|quota| u64::try_from(quota.limit).ok());
        let available = left.into_iter().chain(pools.and_then(|space| space.total)).min().unwrap_or(LARGEST_GIB);
        let largest = per_volume.into_iter().chain(pools.and_then(|space| space.largest)).chain([available]).min();
        room_of(available, largest)
    }
}

/// The pools; none where the credential may not see them, which is asked once.
async fn visible_pools(call: &Call, cloud: &Cloud) -> Result<Option<Vec<Pool>>> {
    if cloud.pools_are_hidden.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let pools = cloud.cinder.pools(call).await?;
    cloud.pools_are_hidden.store(pools.is_none(), Ordering::Relaxed);
    Ok(pools)
}

/// The project's quotas; where the project or the right to see them is missing, the plain limits.
async fn quotas(call: &Call, cloud: &Cloud) -> Result<HashMap<String, Quota>> {
    if let Some(project) = cloud.cinder.client().session().project_id(call).await? {
        match cloud.cinder.quotas(call, &project).await {
            Ok(quotas) => return Ok(quotas),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let limits = cloud.cinder.limits(call).await?;
    let quota = |limit, in_use| Quota { limit, in_use, reserved: 0 };
    Ok(HashMap::from([
        ("gigabytes".to_owned(), quota(limits.max_total_volume_gigabytes, limits.total_gigabytes_used)),
        ("volumes".to_owned(), quota(limits.max_total_volumes, limits.total_volumes_used)),
    ]))
}

/// How many GiB the quotas leave for volumes of a type; none for no bound.
fn quota_left(quotas: &HashMap<String, Quota>, volume_type: Option<&str>) -> Option<u64> {
    let of = |key: &str| quotas.get(key).and_then(Quota::left);
    let of_type = |what: &str| volume_type.and_then(|name| of(&format!("{what}_{name}")));
    let no_volume_left = [of("volumes"), of_type("volumes")].contains(&Some(0));
    if no_volume_left {
        return Some(0);
    }
    [of("gigabytes"), of_type("gigabytes")].into_iter().flatten().min()
}

/// What pools have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    total: Option<u64>,
    largest: Option<u64>,
}

/// What all pools have together, and the largest of them; a pool that does not say leaves both unbounded.
fn space_of(pools: &[Pool]) -> Space {
    let free: Option<Vec<u64>> = pools.iter().map(|pool| pool.capabilities.free_gib()).collect();
    match free {
        Some(free) => Space {
            total: Some(free.iter().fold(0, |sum: u64, gib| sum.saturating_add(*gib))),
            largest: Some(free.into_iter().max().unwrap_or(0)),
        },
        None => Space { total: None, largest: None },
    }
}

#[cfg(test)]
mod tests {
    use super::{Space, quota_left, space_of};
    use crate::openstack::cinder::Pool;
    use crate::openstack::objects::Quota;
    use serde_json::json;
    use std::collections::HashMap;

    fn quotas(entries: &[(&str, i64, i64)]) -> HashMap<String, Quota> {
        entries
            .iter()
            .map(|(key, limit, in_use)| ((*key).to_owned(), Quota { limit: *limit, in_use: *in_use, reserved: 0 }))
            .collect()
    }

    #[test]
    fn the_tightest_quota_counts() {
        for (entries, left) in [
            (&[("gigabytes", 100, 40), ("volumes", 10, 1)][..], Some(60)),
            (&[("gigabytes", 100, 40), ("gigabytes_fast", 20, 5)], Some(15)),
            (&[("gigabytes", 100, 40), ("gigabytes_fast", -1, 5)], Some(60)),
            (&[("gigabytes", 100, 40), ("volumes", 3, 3)], Some(0)),
            (&[("gigabytes", 100, 40), ("volumes_fast", 3, 4)], Some(0)),
            (&[("gigabytes", -1, 40)], None),
            (&[], None),
        ] {
            assert_eq!(quota_left(&quotas(entries), Some("fast")), left, "{entries:?}");
        }
    }

    #[test]
    fn pools_bound_the_room_only_if_all_say_what_they_have() {
        let pool = |free| -> Pool {
            serde_json::from_value(json!({"name": "h@b#p", "capabilities": {"free_capacity_gb": free}})).unwrap()
        };
        assert_eq!(space_of(&[pool(json!(5)), pool(json!(7.9))]), Space { total: Some(12), largest: Some(7) });
        assert_eq!(space_of(&[pool(json!(5)), pool(json!("infinite"))]), Space { total: None, largest: None });
        assert_eq!(space_of(&[]), Space { total: Some(0), largest: Some(0) });
    }
}
