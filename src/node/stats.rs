//! How full a volume is.

use super::mount::place;
use super::{Node, Stats, Usage};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::VolumeId;
use std::path::Path;

/// How full a volume is.
///
/// # Errors
/// See [`Node::stats`].
pub async fn stats(node: &Node, call: &Call, volume: &VolumeId, volume_path: &Path) -> Result<Stats> {
    let path = place::resolve(call, volume_path).await?;
    let record = node.records.load(call, volume).await?;
    let table = node.parts.mounter.table(call).await?;
    let nothing = || Error::not_found(format!("nothing of it is mounted at {}", path.display()));
    let entry = table.top(&path).ok_or_else(nothing)?;
    let expected = record.and_then(|record| record.device).map(|device| device.number);
    let is_other = |number| expected.is_some_and(|expected| expected != number);
    // A raw device first: its node may lie on a file system with a device of its own.
    if let Some(number) = node.parts.mounter.block_device(call, &path).await? {
        if is_other(number) {
            return Err(nothing());
        }
        let device = node.numbered(call, number).await?;
        let total = device.ok_or_else(|| Error::not_found("its device is gone"))?.size.get();
        // Nobody but the workload knows what it uses of a raw device.
        return Ok(Stats { bytes: Usage { total, available: 0, used: 0 }, inodes: None });
    }
    if expected.is_some() && entry.block != expected {
        return Err(nothing());
    }
    node.parts.mounter.statistics(call, &path).await
}
