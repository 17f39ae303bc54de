//! Growing volumes, in use or not.

use super::failure::{ended_in_error, wrong_state};
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, Capability, SizeRange, VolumeId};
use crate::openstack::cinder::{EXTEND_IN_USE, Volume, VolumeStatus};
use crate::provider::failure::{is_refused_with, says};
use crate::provider::size::gib;
use crate::provider::{Expand, Expanded};
use async_trait::async_trait;

/// How growing a volume went, from its state.
#[derive(Debug, PartialEq, Eq)]
enum Growing {
    /// It has the size.
    Done(u64),
    /// It is back in its old state with its old size: the scheduler or the server has refused.
    Refused(String),
}

#[async_trait]
impl Expand for CinderProvider {
    async fn expand_volume(
        &self,
        call: &Call,
        id: &VolumeId,
        size: SizeRange,
        _capability: Option<&Capability>,
    ) -> Result<Expanded> {
        Box::pin(self.grow(call, id, size)).await.map_err(|error| error.during(format!("expand volume {id}")))
    }
}

impl CinderProvider {
    async fn grow(&self, call: &Call, id: &VolumeId, size: SizeRange) -> Result<Expanded> {
        let (handle, cloud) = self.existing(id)?;
        let id = handle.id.as_str();
        let wanted = size.whole_gib(0)?;
        loop {
            call.check("grow the volume")?;
            let Err(error) = cloud.cinder.extend_volume(call, id, wanted).await else { break };
            if !is_refused_with(&error, 400) {
                return Err(error);
            }
            // Large enough already, or in a state that does not allow it.
            let volume = cloud.cinder.volume(call, id).await?;
            if volume.size >= wanted && !matches!(volume.status, VolumeStatus::Extending) {
                return expanded(volume.size, size);
            }
            match &volume.status {
                VolumeStatus::Extending => {
                    let grown = await_grown(call, cloud, id, wanted).await;
                    // What another call asked for may be less than this one wants.
                    if let Ok(Growing::Done(gib)) = grown {
                        return expanded(gib, size);
                    }
                }
                VolumeStatus::InUse if !cloud.cinder.has(call, EXTEND_IN_USE).await? => {
                    return Err(Error::wrong_state(format!(
                        "volume {id} is attached to a server, and this Cinder grows detached volumes only; stop its users first"
                    ))
                    .because(error));
                }
                VolumeStatus::Available | VolumeStatus::InUse if says(&error, &["status must be"]) => {
                    call.sleep("wait before the volume is grown", std::time::Duration::from_millis(250)).await?;
                }
                VolumeStatus::Available | VolumeStatus::InUse => return Err(error),
                status if status.is_passing() => {
                    let was = status.clone();
                    cloud
                        .volumes
                        .until(call, "settle volume", id, move |seen| {
                            Ok(seen.is_none_or(|seen| seen.volume.status != was).then_some(()))
                        })
                        .await?;
                }
                _ => return Err(wrong_state(&volume).because(error)),
            }
        }
        match await_grown(call, cloud, id, wanted).await? {
            Growing::Done(gib) => expanded(gib, size),
            Growing::Refused(status) => {
                Err(ended_in_error(call, cloud, "volume", id, &format!("{status} with its old size")).await)
            }
        }
    }
}

async fn await_grown(call: &Call, cloud: &Cloud, id: &str, wanted: u64) -> Result<Growing> {
    let ended = cloud
        .volumes
        .until(call, "expand volume", id, move |seen| match seen {
            None => Err(Error::not_found("the volume is gone")),
            Some(seen) => Ok(growing(&seen.volume, wanted)),
        })
        .await?;
    Ok(ended)
}

/// What a volume's state means after Cinder has agreed to grow it. The size counts, not the status: a scheduler that
/// refuses puts the old status back.
fn growing(volume: &Volume, wanted: u64) -> Option<Growing> {
    match &volume.status {
        VolumeStatus::Extending => None,
        _ if volume.size >= wanted => Some(Growing::Done(volume.size)),
        status => Some(Growing::Refused(status.to_string())),
    }
}

/// The answer. Also an attached raw volume has a step on the node: there the size is proven.
fn expanded(gib_now: u64, range: SizeRange) -> Result<Expanded> {
    let size: Bytes = gib(gib_now)?;
    match range.limit {
        Some(limit) if size > limit => Err(Error::new(
            Kind::OutOfRange,
            format!("the volume has {size} already, which is over limit_bytes ({limit})"),
        )),
        _ => Ok(Expanded { size, node_step: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Growing, expanded, growing};
    use crate::error::Kind;
    use crate::model::{Bytes, SizeRange};
    use crate::openstack::cinder::Volume;
    use serde_json::json;

    #[test]
    fn the_size_tells_whether_a_volume_has_grown() {
        for (status, size, expected) in [
            ("extending", 1, None),
            ("extending", 2, None),
            ("available", 2, Some(Growing::Done(2))),
            ("in-use", 3, Some(Growing::Done(3))),
            ("in-use", 1, Some(Growing::Refused("in-use".to_owned()))),
            ("error_extending", 1, Some(Growing::Refused("error_extending".to_owned()))),
        ] {
            let volume: Volume = serde_json::from_value(json!({"id": "v", "status": status, "size": size})).unwrap();
            assert_eq!(growing(&volume, 2), expected, "{status} {size}");
        }
    }

    #[test]
    fn a_volume_over_the_limit_is_out_of_range() {
        let range = SizeRange::new(Bytes::ZERO, Bytes::from_gib(2)).unwrap();
        assert!(expanded(2, range).is_ok());
        assert_eq!(expanded(3, range).unwrap_err().kind(), Kind::OutOfRange);
    }
}
