//! Unstaging: unmounted, made sure that nobody uses it, disconnected, and its record removed.

use super::Node;
use super::connector::{Connector, Link, Source};
use super::device::Device;
use super::fuse;
use super::mount::place;
use super::record::Record;
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::Command;
use crate::model::VolumeId;
use std::path::Path;

/// Takes the volume from this machine.
///
/// # Errors
/// See [`Node::unstage`].
pub async fn unstage(node: &Node, call: &Call, volume: &VolumeId, staging_path: &Path) -> Result<()> {
    let path = place::resolve(call, staging_path).await?;
    let record = node.records.load(call, volume).await?;
    let record = record.filter(|record| record.staging_path == path);
    // A bind mount hides nothing of the device: both the staged and any published mount keep it busy.
    place::unmount_all(&*node.parts.mounter, &node.parts.host, call, &path).await?;
    fuse::remove_key(call, &node.parts.plugin_dir, volume).await?;
    let Some(record) = record else { return Ok(()) };
    if let Some(device) = &record.device {
        refuse_if_mounted(node, call, volume, device).await?;
    }
    let (connector, link) = node.link(volume, Some(&record))?;
    unless_never_here(take_away(node, call, &*connector, &link).await, &record)?;
    node.records.remove(call, volume).await
}

async fn take_away(node: &Node, call: &Call, connector: &dyn Connector, link: &Link) -> Result<()> {
    if link.is_read_only()
        && let Some(Source::Block(device)) = connector.locate(call, link).await?
        && device.read_only
    {
        // Whoever gets the disk next under this driver may write.
        let command = Command::new("blockdev").arg("--setrw").arg(&device.path).to_the_end();
        node.parts.exec.run(call, command).await?;
    }
    connector.disconnect(call, link).await
}

/// Data that make no sense cannot have brought a device, and will make no more sense the next time: a volume of which nothing
/// was ever here is not kept for ever because of them.
pub(super) fn unless_never_here(disconnected: Result<()>, record: &Record) -> Result<()> {
    match disconnected {
        Err(error) if error.is(Kind::InvalidArgument) && record.device.is_none() && !record.staged => {
            tracing::info!(volume = %record.volume, %error, "nothing was connected, so there is nothing to disconnect");
            Ok(())
        }
        other => other,
    }
}

/// Disconnecting a device under a mounted file system would lose what was written last.
pub(super) async fn refuse_if_mounted(node: &Node, call: &Call, volume: &VolumeId, device: &Device) -> Result<()> {
    let table = node.parts.mounter.table(call).await?;
    let now = node.numbered(call, device.number).await?;
    if !now.is_some_and(|now| now.is_same_disk(device)) {
        // The disk is gone, and its number may be another's.
        return Ok(());
    }
    let mounts = table.of(device.number).map(|entry| entry.mount_point.clone());
    let shown = node.places_of_device_node(call, &table, device).await?;
    let places: Vec<_> = mounts.chain(shown).map(|place| place.display().to_string()).collect();
    if places.is_empty() {
        Ok(())
    } else {
        Err(Error::busy(format!("volume {volume} is still mounted on {}: unpublish it there first", places.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::unless_never_here;
    use crate::error::{Error, Kind};
    use crate::model::{AccessKind, AccessMode, Connection};
    use crate::node::device::fake;
    use crate::node::record::Record;

    #[test]
    fn only_a_volume_of_which_nothing_was_ever_here_is_given_up_for_senseless_data() {
        let root = tempfile::tempdir().unwrap();
        let data = serde_json::json!({});
        let connection = Connection { kind: "iscsi".to_owned(), data, size: None, read_only: false, sealed: None };
        let mode = AccessMode::SingleNodeWriter;
        let record = Record::new("v".parse().unwrap(), connection, "/staging".into(), mode, AccessKind::Block);
        let (mut with_device, mut staged) = (record.clone(), record.clone());
        with_device.device = Some(fake::add_disk(root.path(), "sdb", 1, 1 << 20, None));
        staged.staged = true;
        for (record, kind, is_given_up) in [
            (&record, Kind::InvalidArgument, true),
            (&record, Kind::Busy, false),
            (&record, Kind::WrongState, false),
            (&with_device, Kind::InvalidArgument, false),
            (&staged, Kind::InvalidArgument, false),
        ] {
            let result = unless_never_here(Err(Error::new(kind, "why")), record);
            assert_eq!(result.is_ok(), is_given_up, "{kind:?} {record:?}");
        }
        unless_never_here(Ok(()), &with_device).unwrap();
    }
}
