//! Growing what is on a volume, proven at every layer: the device, then the file system on it.

use super::connector::Source;
use super::filesystem::{Growth, Tools, fills};
use super::mount::place;
use super::{Node, device::Device};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, SizeRange, VolumeId};
use std::path::{Path, PathBuf};

/// Grows what is on the volume to the volume's size and says what was measured.
///
/// # Errors
/// See [`Node::expand`].
pub async fn expand(
    node: &Node,
    call: &Call,
    volume: &VolumeId,
    volume_path: &Path,
    staging_path: Option<&Path>,
    size: SizeRange,
) -> Result<Bytes> {
    let shown = find(node, call, volume, volume_path, staging_path).await?;
    let record = node.records.load(call, volume).await?;
    let (connector, link) = node.link(volume, record.as_ref())?;
    if let Shown::Share(path) | Shown::Mounted { path, .. } = &shown
        && connector.has_shares()
    {
        // A share's size is the server's business.
        return Ok(Bytes::new(node.parts.mounter.statistics(call, path).await?.bytes.total));
    }
    let device = match connector.rescan(call, &link, size.required).await? {
        Source::Block(device) => device,
        Source::Share(_) => return Err(Error::not_found("it is a share now, and was a device")),
    };
    if device.size < size.required {
        return Err(Error::new(
            Kind::Unavailable,
            format!(
                "{} has {} and {} are required: the hypervisor or target has not passed the new size on yet; if that \
                 stays so, see whether Cinder shows the new size and whether the server was told",
                device.path.display(),
                device.size,
                size.required
            ),
        ));
    }
    match shown {
        Shown::Mounted { path, fstype, number, is_read_only } => {
            if number != device.number {
                return Err(Error::not_found(format!("what is mounted at {} is not the volume", path.display())));
            }
            grow(node, call, &device, &path, &fstype, is_read_only).await?;
        }
        Shown::Device(number) if number != device.number => {
            return Err(Error::not_found(format!("the device at {} is not the volume", volume_path.display())));
        }
        Shown::Device(_) | Shown::Share(_) | Shown::Staged => {}
    }
    Ok(device.size)
}

/// How the volume is to be seen at the paths that were named.
enum Shown {
    Mounted {
        path: PathBuf,
        fstype: String,
        number: super::DeviceNumber,
        is_read_only: bool,
    },
    Device(super::DeviceNumber),
    Share(PathBuf),
    /// As raw block, staged and not published: nothing to be seen.
    Staged,
}

async fn find(
    node: &Node,
    call: &Call,
    volume: &VolumeId,
    volume_path: &Path,
    staging_path: Option<&Path>,
) -> Result<Shown> {
    let table = node.parts.mounter.table(call).await?;
    for path in std::iter::once(volume_path).chain(staging_path) {
        let path = place::resolve(call, path).await?;
        let Some(entry) = table.top(&path) else { continue };
        if let Some(number) = node.parts.mounter.block_device(call, &path).await? {
            return Ok(Shown::Device(number));
        }
        return Ok(match entry.block {
            Some(number) => Shown::Mounted {
                fstype: entry.fstype.clone(),
                number,
                is_read_only: entry.is_filesystem_read_only(),
                path,
            },
            None => Shown::Share(path),
        });
    }
    let record = node.records.load(call, volume).await?;
    let is_staged_block = record.is_some_and(|record| {
        record.staged
            && matches!(record.kind, crate::model::AccessKind::Block)
            && std::iter::once(volume_path).chain(staging_path).any(|path| record.staging_path == path)
    });
    if is_staged_block {
        return Ok(Shown::Staged);
    }
    Err(Error::not_found(format!("nothing of it is mounted at {}", volume_path.display())))
}

async fn grow(
    node: &Node,
    call: &Call,
    device: &Device,
    mount_point: &Path,
    fstype: &str,
    is_read_only: bool,
) -> Result<()> {
    let filesystem = node.parts.filesystems.get(fstype).map_err(|error| error.as_kind(Kind::WrongState))?;
    let tools = Tools { exec: &*node.parts.exec, call };
    if fills(filesystem.mounted_size(&tools, &device.path, mount_point).await?, device.size) {
        return Ok(());
    }
    if is_read_only {
        return Err(Error::wrong_state(format!(
            "the {fstype} at {} is mounted read-only and cannot grow: it will when it is staged for writing",
            mount_point.display()
        )));
    }
    if let Growth::NotMounted(why) = filesystem.grow(&tools, &device.path, mount_point).await? {
        return Err(Error::wrong_state(format!(
            "this node does not grow a mounted {fstype} ({why}): it will be grown when it is staged the next time, \
             so restart its workloads"
        )));
    }
    let size = filesystem.mounted_size(&tools, &device.path, mount_point).await?;
    if fills(size, device.size) {
        Ok(())
    } else {
        Err(Error::internal(format!(
            "the {fstype} at {} has {size} after it was grown, and its device {}",
            mount_point.display(),
            device.size
        )))
    }
}
