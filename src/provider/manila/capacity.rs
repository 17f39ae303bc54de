//! How much more can be made: what the quotas leave. What the pools have is for administrators only.

use super::parameters::ShareParameters;
use super::{Cloud, ManilaProvider};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::model::{StringMap, Topology};
use crate::openstack::objects::Quota;
use crate::provider::size::{LARGEST_GIB, room_of};
use crate::provider::{Capacity, Room};
use async_trait::async_trait;
use std::collections::HashMap;

#[async_trait]
impl Capacity for ManilaProvider {
    async fn room(&self, call: &Call, parameters: &StringMap, _topology: Option<&Topology>) -> Result<Room> {
        self.measure(call, parameters).await.map_err(|error| error.during("see how much room is left"))
    }
}

impl ManilaProvider {
    async fn measure(&self, call: &Call, parameters: &StringMap) -> Result<Room> {
        let parameters = ShareParameters::parse(&self.names, &self.protocol, parameters)?;
        // GetCapacity carries no secret, so it can only be about the default cloud.
        let cloud = self.clouds.of_handle("")?;
        let quotas = quotas(call, cloud, parameters.share_type.as_deref()).await?;
        let (available, largest) = bounds(&quotas);
        room_of(available.unwrap_or(LARGEST_GIB), largest)
    }
}

/// The quotas of the project and of the share type in it; where the right to see them is missing, the plain limits.
async fn quotas(call: &Call, cloud: &Cloud, share_type: Option<&str>) -> Result<Vec<HashMap<String, Quota>>> {
    let refused = |kind| matches!(kind, Kind::Denied | Kind::NotFound);
    if let Some(project) = cloud.manila.client().session().project_id(call).await? {
        match cloud.manila.quotas(call, &project, None).await {
            Ok(of_project) => {
                let mut all = vec![of_project];
                if let Some(share_type) = share_type {
                    match cloud.manila.quotas(call, &project, Some(share_type)).await {
                        Ok(of_type) => all.push(of_type),
                        Err(error) if refused(error.kind()) => {}
                        Err(error) => return Err(error),
                    }
                }
                return Ok(all);
            }
            Err(error) if refused(error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    let limits = cloud.manila.limits(call).await?;
    let quota = |limit, in_use| Quota { limit, in_use, reserved: 0 };
    Ok(vec![HashMap::from([
        ("gigabytes".to_owned(), quota(limits.max_total_share_gigabytes, limits.total_share_gigabytes_used)),
        ("shares".to_owned(), quota(limits.max_total_shares, limits.total_shares_used)),
    ])])
}

/// How many GiB are left in all, and for one share; none for no bound.
fn bounds(quotas: &[HashMap<String, Quota>]) -> (Option<u64>, Option<u64>) {
    let left = |key: &'static str| quotas.iter().filter_map(move |set| set.get(key).and_then(Quota::left));
    let available = if left("shares").any(|count| count == 0) { Some(0) } else { left("gigabytes").min() };
    let per_share = quotas.iter().filter_map(|set| set.get("per_share_gigabytes"));
    let per_share = per_share.filter_map(|quota| u64::try_from(quota.limit).ok());
    (available, per_share.chain(available).min())
}

#[cfg(test)]
mod tests {
    use super::bounds;
    use crate::openstack::objects::Quota;
    use std::collections::HashMap;

    fn quotas(entries: &[(&str, i64, i64)]) -> HashMap<String, Quota> {
        let quota = |limit, in_use| Quota { limit, in_use, reserved: 0 };
        entries.iter().map(|(key, limit, in_use)| ((*key).to_owned(), quota(*limit, *in_use))).collect()
    }

    #[test]
    fn the_tightest_quota_counts() {
        for (project, of_type, expected) in [
            (&[("gigabytes", 100, 40), ("shares", 10, 1)][..], &[][..], (Some(60), Some(60))),
            (&[("gigabytes", 100, 40)], &[("gigabytes", 20, 5)], (Some(15), Some(15))),
            (&[("gigabytes", 100, 40), ("per_share_gigabytes", 10, 0)], &[], (Some(60), Some(10))),
            (&[("gigabytes", 100, 40), ("per_share_gigabytes", -1, 0)], &[], (Some(60), Some(60))),
            (&[("gigabytes", 100, 40), ("shares", 3, 3)], &[], (Some(0), Some(0))),
            (&[("gigabytes", -1, 40)], &[], (None, None)),
        ] {
            assert_eq!(bounds(&[quotas(project), quotas(of_type)]), expected, "{project:?}");
        }
    }
}
