//! What is wrong with a volume on this node.

use super::connector::Source;
use super::mount::table::MountTable;
use super::mount::{Pulse, place};
use super::record::Record;
use super::{Node, blocking};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{AccessKind, Health, Severity, VolumeId};
use crate::node::device::{Device, attribute};
use std::path::{Path, PathBuf};

/// What is wrong with it on this node.
///
/// # Errors
/// See [`Node::health`].
pub async fn health(
    node: &Node,
    call: &Call,
    volume: &VolumeId,
    publish_path: Option<&Path>,
    staging_path: Option<&Path>,
) -> Result<Vec<Health>> {
    let record = node.records.load(call, volume).await?;
    let table = node.parts.mounter.table(call).await?;
    let mut paths = Vec::new();
    for path in [staging_path, publish_path].into_iter().flatten() {
        paths.push(place::resolve(call, path).await?);
    }
    if let Some(record) = &record
        && !paths.contains(&record.staging_path)
    {
        paths.insert(0, record.staging_path.clone());
    }
    if record.is_none() && !paths.iter().any(|path| table.top(path).is_some()) {
        return Err(Error::not_found("it is neither staged nor published on this node"));
    }
    let mut problems = Vec::new();
    let device = device(node, call, volume, record.as_ref(), &mut problems).await?;
    for path in paths {
        look(node, call, &table, record.as_ref(), device.as_ref(), &path, &mut problems).await?;
    }
    Ok(problems)
}

/// The volume's device; one that is gone or too small is a problem.
async fn device(
    node: &Node,
    call: &Call,
    volume: &VolumeId,
    record: Option<&Record>,
    problems: &mut Vec<Health>,
) -> Result<Option<Device>> {
    let (connector, link) = node.link(volume, record)?;
    let problem = match connector.locate(call, &link).await {
        Ok(Some(Source::Share(_))) => return Ok(None),
        Ok(Some(Source::Block(device))) => {
            let is_replaced =
                record.and_then(|record| record.device.as_ref()).is_some_and(|staged| !staged.is_same_disk(&device));
            if !is_replaced {
                return Ok(Some(device));
            }
            Health {
                severity: Severity::Inaccessible,
                reason: "DeviceReplaced",
                message: format!(
                    "the volume was detached and attached again as {} while in use",
                    device.path.display()
                ),
            }
        }
        Ok(None) => Health {
            severity: Severity::Inaccessible,
            reason: "DeviceGone",
            message: "the volume's device is not on this node any more".to_owned(),
        },
        Err(error) if error.is(Kind::WrongState) => {
            Health { severity: Severity::Inaccessible, reason: "DeviceUnclear", message: error.to_string() }
        }
        Err(error) => return Err(error),
    };
    problems.push(problem);
    Ok(None)
}

async fn look(
    node: &Node,
    call: &Call,
    table: &MountTable,
    record: Option<&Record>,
    device: Option<&Device>,
    path: &PathBuf,
    problems: &mut Vec<Health>,
) -> Result<()> {
    let mut report = |severity, reason, message: String| problems.push(Health { severity, reason, message });
    let is_staging_path = record.is_some_and(|record| record.staging_path == *path);
    let is_block = record.is_some_and(|record| matches!(record.kind, AccessKind::Block));
    let Some(entry) = table.top(path) else {
        // Raw block has nothing mounted at its staging path, and what was never staged has lost nothing.
        if !(is_staging_path && (is_block || record.is_some_and(|record| !record.staged))) {
            let message = format!("nothing is mounted at {} any more", path.display());
            report(Severity::Inaccessible, "MountLost", message);
        }
        return Ok(());
    };
    if is_block {
        return Ok(());
    }
    match node.parts.mounter.pulse(call, path).await? {
        Pulse::Alive => {}
        Pulse::Dead => {
            let message = format!("the {} at {} is shut down: I/O errors", entry.fstype, path.display());
            report(Severity::Inaccessible, "FilesystemShutDown", message);
            return Ok(());
        }
        Pulse::Hung => {
            let message = format!("the {} at {} does not answer", entry.fstype, path.display());
            report(Severity::Inaccessible, "FilesystemHung", message);
            return Ok(());
        }
    }
    if entry.is_filesystem_read_only() && !entry.is_read_only() {
        let message = format!("the kernel made the {} at {} read-only after errors", entry.fstype, path.display());
        report(Severity::Degraded, "FilesystemReadOnly", message);
    }
    if is_staging_path
        && let Some(device) = device
        && let Some(count) = ext_errors(node, call, device).await?
    {
        let message = format!("the {} on {} counted {count} errors: check it", entry.fstype, device.path.display());
        report(Severity::Degraded, "FilesystemErrors", message);
    }
    Ok(())
}

/// How many errors an ext file system has counted, if any.
async fn ext_errors(node: &Node, call: &Call, device: &Device) -> Result<Option<u64>> {
    let file = node.parts.host.path("/sys/fs/ext4").join(&device.name).join("errors_count");
    blocking::run(call, "read the error count", move || {
        let text = attribute(&file).map_err(|error| Error::internal("read the error count").because(error))?;
        Ok(text.and_then(|text| text.parse().ok()).filter(|count| *count > 0))
    })
    .await
}
