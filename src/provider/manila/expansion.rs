//! Growing shares. Nothing is left to do for nodes: a share's size is the server's business.

use super::failure::{ended_in_error, wrong_state};
use super::share::await_settled;
use super::{Cloud, FIRST_LOOK, ManilaProvider};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, Capability, SizeRange, VolumeId};
use crate::openstack::manila::{Share, ShareStatus};
use crate::provider::failure::is_refused_with;
use crate::provider::size::gib;
use crate::provider::{Expand, Expanded};
use async_trait::async_trait;

/// How growing a share went, from its state.
#[derive(Debug, PartialEq, Eq)]
enum Growing {
    /// It has the size.
    Done(u64),
    /// It has its old size in this status: the scheduler or the driver has refused.
    Refused(String),
}

#[async_trait]
impl Expand for ManilaProvider {
    async fn expand_volume(
        &self,
        call: &Call,
        id: &VolumeId,
        size: SizeRange,
        _capability: Option<&Capability>,
    ) -> Result<Expanded> {
        Box::pin(self.grow(call, id, size)).await.map_err(|error| error.during(format!("expand share {id}")))
    }
}

impl ManilaProvider {
    async fn grow(&self, call: &Call, id: &VolumeId, size: SizeRange) -> Result<Expanded> {
        let (cloud, id) = self.existing(call, id).await?;
        let id = id.as_str();
        let wanted = size.whole_gib(0)?;
        loop {
            call.check("grow the share")?;
            let Err(error) = cloud.manila.extend_share(call, id, wanted).await else { break };
            if !(is_refused_with(&error, 400) || is_refused_with(&error, 409)) {
                return Err(error);
            }
            // Large enough already, or in a state that does not allow it.
            let share: Share = cloud.manila.one(call, id).await?;
            if share.size >= wanted && share.status != ShareStatus::Extending {
                return expanded(share.size, size);
            }
            match &share.status {
                ShareStatus::Available => return Err(error.as_kind(Kind::InvalidArgument)),
                ShareStatus::Extending => {
                    // What another call asked for may be less than this one wants.
                    if let Growing::Done(gib) = await_grown(call, cloud, id, wanted).await? {
                        return expanded(gib, size);
                    }
                }
                status if status.is_passing() && !status.is_leaving() => await_settled(call, cloud, &share).await?,
                _ => return Err(wrong_state(&share).because(error)),
            }
        }
        match await_grown(call, cloud, id, wanted).await? {
            Growing::Done(gib) => expanded(gib, size),
            Growing::Refused(status) => {
                Err(ended_in_error(call, cloud, "share", id, &format!("{status} with its old size")).await)
            }
        }
    }
}

async fn await_grown(call: &Call, cloud: &Cloud, id: &str, wanted: u64) -> Result<Growing> {
    let _noted = cloud.notes.passing(id, "extending");
    cloud
        .shares
        .until_from(call, "expand share", FIRST_LOOK, id, move |seen| match seen {
            None => Err(Error::not_found("the share is gone")),
            Some(seen) => Ok(growing(&seen.object, wanted)),
        })
        .await
}

/// What a share's state means after Manila has agreed to grow it. The size counts, not the status: a scheduler that
/// refuses puts the old status back.
fn growing(share: &Share, wanted: u64) -> Option<Growing> {
    match &share.status {
        ShareStatus::Extending => None,
        _ if share.size >= wanted => Some(Growing::Done(share.size)),
        status => Some(Growing::Refused(status.to_string())),
    }
}

fn expanded(gib_now: u64, range: SizeRange) -> Result<Expanded> {
    let size: Bytes = gib(gib_now)?;
    match range.limit {
        Some(limit) if size > limit => Err(Error::new(
            Kind::OutOfRange,
            format!("the share has {size} already, which is over limit_bytes ({limit}), and shares are not shrunk"),
        )),
        _ => Ok(Expanded { size, node_step: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Growing, expanded, growing};
    use crate::error::Kind;
    use crate::model::{Bytes, SizeRange};
    use crate::openstack::manila::Share;
    use serde_json::json;

    #[test]
    fn the_size_tells_whether_a_share_has_grown() {
        for (status, size, expected) in [
            ("extending", 1, None),
            ("extending", 2, None),
            ("available", 2, Some(Growing::Done(2))),
            ("available", 1, Some(Growing::Refused("available".to_owned()))),
            ("extending_error", 1, Some(Growing::Refused("extending_error".to_owned()))),
        ] {
            let share: Share = serde_json::from_value(json!({"id": "s", "status": status, "size": size})).unwrap();
            assert_eq!(growing(&share, 2), expected, "{status} {size}");
        }
    }

    #[test]
    fn a_share_over_the_limit_is_out_of_range_and_nodes_have_nothing_to_do() {
        let range = SizeRange::new(Bytes::ZERO, Bytes::from_gib(2)).unwrap();
        assert!(!expanded(2, range).unwrap().node_step);
        assert_eq!(expanded(3, range).unwrap_err().kind(), Kind::OutOfRange);
    }
}
