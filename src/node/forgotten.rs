//! Records of volumes that left this machine without being unstaged.
//!
//! A node that was rebooted or fenced may never hear of a volume again: it was detached by force, and is staged elsewhere
//! or deleted. Its record would stay for ever, and be taken for that of the disk that has the old one's name now. So at its
//! start the node looks at every record, and removes those of which nothing is left here.

use super::connector::Source;
use super::record::Record;
use super::{Node, fuse, unstage};
use crate::call::Call;
use crate::error::{Kind, Result};

/// Removes the records of volumes that are not here any more, and returns how many those were. What cannot be told is kept.
///
/// # Errors
/// See [`Node::forget_what_is_gone`].
pub async fn forget(node: &Node, call: &Call) -> Result<usize> {
    if let Err(error) = fuse::remove_all_keys(call, &node.parts.plugin_dir).await {
        tracing::warn!(%error, "left to unstaging");
    }
    let mut forgotten = 0;
    for record in node.records.all(call).await? {
        call.check("look for volumes that left this node")?;
        match remove_if_gone(node, call, &record).await {
            Ok(true) => {
                tracing::info!(volume = %record.volume, "left this node without being unstaged: its record is removed");
                forgotten += 1;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(volume = %record.volume, %error, "not clear whether it is still here"),
        }
    }
    Ok(forgotten)
}

async fn remove_if_gone(node: &Node, call: &Call, record: &Record) -> Result<bool> {
    // Only the record tells what a broken-off mkfs left on the volume from somebody's data.
    if record.formatting.is_some() || is_in_use(node, call, record).await? {
        return Ok(false);
    }
    let (connector, link) = node.link(&record.volume, Some(record))?;
    if let Some(Source::Block(_)) = connector.locate(call, &link).await? {
        return Ok(false);
    }
    // Without its device there may still be half a connection, such as a login.
    connector.disconnect(call, &link).await?;
    node.records.remove(call, &record.volume).await?;
    Ok(true)
}

/// Whether something of the volume is mounted.
async fn is_in_use(node: &Node, call: &Call, record: &Record) -> Result<bool> {
    let table = node.parts.mounter.table(call).await?;
    if table.top(&record.staging_path).is_some() {
        return Ok(true);
    }
    let Some(device) = &record.device else { return Ok(false) };
    match unstage::refuse_if_mounted(node, call, &record.volume, device).await {
        Err(error) if error.is(Kind::Busy) => Ok(true),
        other => other.map(|()| false),
    }
}
