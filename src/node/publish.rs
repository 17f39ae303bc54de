//! Publishing: the staged volume shown at the place where one workload expects it; and the way back.

use super::connector::Source;
use super::mount::Pulse;
use super::mount::options::MountOptions;
use super::mount::place::{self, Shape};
use super::mount::table::{MountEntry, MountTable};
use super::record::{Record, digest, file_name};
use super::{Node, PublishRequest};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{AccessKind, AccessMode, VolumeId};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys_mount::MountFlags;

/// The time that clearing up gets, since the caller's own may be over.
const UNDO_TIME: Duration = Duration::from_secs(30);

/// Shows the staged volume to one workload.
///
/// # Errors
/// See [`Node::publish`].
pub async fn publish(node: &Node, call: &Call, request: &PublishRequest) -> Result<()> {
    let staging_path = place::resolve(call, &request.staging_path).await?;
    let target = place::resolve(call, &request.target_path).await?;
    let record = node.records.load(call, &request.volume).await?;
    if let Some(record) = &record {
        check_against(record, request, &staging_path)?;
    }
    let table = node.parts.mounter.table(call).await?;
    let publication = Publication { node, call, request, target };
    match &request.capability.kind {
        AccessKind::Block => publication.show_device(&table, record.as_ref()).await,
        AccessKind::Mount { options, .. } => {
            let options = MountOptions::parse(options.iter().map(String::as_str))?;
            publication.show_filesystem(&table, record.as_ref(), &staging_path, &options).await
        }
    }
}

/// Takes it away from one workload.
///
/// # Errors
/// See [`Node::unpublish`].
pub async fn unpublish(node: &Node, call: &Call, volume: &VolumeId, target_path: &Path) -> Result<()> {
    let target = place::resolve(call, target_path).await?;
    clear(node, call, &target).await?;
    // What a crash between the steps of a read-only publication may have left.
    clear(node, call, &rehearsal_of(node, volume, &target)).await
}

/// Takes a path and all mounts on it away.
async fn clear(node: &Node, call: &Call, path: &Path) -> Result<()> {
    unmount(node, call, path).await?;
    place::remove(call, path).await
}

async fn unmount(node: &Node, call: &Call, path: &Path) -> Result<()> {
    place::unmount_all(&*node.parts.mounter, &node.parts.host, call, path).await.map(drop)
}

/// One call to publish a volume.
struct Publication<'a> {
    node: &'a Node,
    call: &'a Call,
    request: &'a PublishRequest,
    target: PathBuf,
}

impl Publication<'_> {
    async fn show_filesystem(
        &self,
        table: &MountTable,
        record: Option<&Record>,
        staging_path: &Path,
        options: &MountOptions,
    ) -> Result<()> {
        let device = record.and_then(|record| record.device.as_ref());
        let staged = table
            .top(staging_path)
            .filter(|entry| device.is_none_or(|device| entry.block == Some(device.number)))
            .ok_or_else(|| self.not_staged(staging_path))?;
        if self.node.parts.mounter.pulse(self.call, staging_path).await? != Pulse::Alive {
            return Err(Error::wrong_state(format!(
                "the file system at {} is shut down or does not answer: see the node's kernel log; \
                 unstage and stage the volume to mount it anew",
                staging_path.display()
            )));
        }
        // What is staged read-only is shown so, whatever the workload asks for: that is what a repeated call finds.
        let read_only = self.is_read_only() || options.is_read_only() || staged.is_read_only();
        if let Some(entry) = table.top(&self.target) {
            let is_same = entry.device == staged.device && entry.root == staged.root;
            if self.is_published(entry, is_same, read_only).await? {
                return Ok(());
            }
        }
        // The table has mounts in the order of their making, and what was there before staging is no publication.
        let later = table.entries().iter().skip_while(|entry| entry.id != staged.id);
        let same = later.filter(|entry| entry.device == staged.device && entry.root == staged.root);
        self.refuse_second_writer(same.map(|entry| entry.mount_point.as_path()), staging_path)?;
        let inherited = flags_of(staged)?;
        let mut flags = inherited | options.mount_flags();
        flags.set(MountFlags::RDONLY, read_only);
        let made = place::make(self.call, &self.target, Shape::Directory).await?;
        let shown = if flags == inherited {
            // A bind mount has the flags of what it shows.
            self.node.parts.mounter.bind(self.call, staging_path, &self.target).await
        } else {
            self.show_with(staging_path, Shape::Directory, flags).await
        };
        self.or_undo(shown, made).await
    }

    async fn show_device(&self, table: &MountTable, record: Option<&Record>) -> Result<()> {
        let (connector, link) = self.node.link(&self.request.volume, record)?;
        let device = match connector.locate(self.call, &link).await? {
            Some(Source::Block(device)) => device,
            Some(Source::Share(_)) => return Err(Error::invalid("access_type block: a share is no block device")),
            None => {
                return Err(Error::wrong_state(
                    "its device is not on this node: stage it first, and see whether it is still attached",
                ));
            }
        };
        let number = self.node.parts.mounter.block_device(self.call, &device.path).await?;
        if number != Some(device.number) {
            return Err(Error::wrong_state(format!(
                "{} is not the device {} that the kernel calls {}: is the host's /dev mounted into the driver's container?",
                device.path.display(),
                device.number,
                device.name
            )));
        }
        let read_only = self.is_read_only();
        if let Some(entry) = table.top(&self.target) {
            let shown = self.node.parts.mounter.block_device(self.call, &self.target).await?;
            if self.is_published(entry, shown == number, read_only).await? {
                return Ok(());
            }
        }
        if self.request.capability.mode == AccessMode::SingleNodeSingleWriter {
            let shown = self.node.places_of_device_node(self.call, table, &device).await?;
            self.refuse_second_writer(shown.iter().map(PathBuf::as_path), &self.request.staging_path)?;
        }
        let made = place::make(self.call, &self.target, Shape::File).await?;
        let shown = if read_only {
            self.show_with(&device.path, Shape::File, MountFlags::RDONLY).await
        } else {
            self.node.parts.mounter.bind(self.call, &device.path, &self.target).await
        };
        self.or_undo(shown, made).await
    }

    /// One workload is promised to be the only one (CSI `SINGLE_NODE_SINGLE_WRITER`): not if the volume is shown at
    /// another place than this target, where it is staged, and where publications are made.
    fn refuse_second_writer<'p>(&self, places: impl Iterator<Item = &'p Path>, staging_path: &Path) -> Result<()> {
        if self.request.capability.mode != AccessMode::SingleNodeSingleWriter {
            return Ok(());
        }
        let rehearsals = rehearsals(self.node);
        let mut others = places
            .filter(|place| *place != self.target && *place != staging_path && !place.starts_with(&rehearsals))
            .map(|place| place.display().to_string());
        match others.next() {
            None => Ok(()),
            Some(other) => Err(Error::wrong_state(format!(
                "it is published at {other}, and its access mode SINGLE_NODE_SINGLE_WRITER allows one place only: \
                 unpublish it there first"
            ))),
        }
    }

    /// Whether the mount found on the target is the publication that was asked for. A dead one is cleared away.
    async fn is_published(&self, entry: &MountEntry, is_same: bool, read_only: bool) -> Result<bool> {
        let target = self.target.display();
        if is_same {
            return if entry.is_read_only() == read_only {
                // What a crash right after the last bind may have left.
                self.clear_rehearsal(self.call).await?;
                Ok(true)
            } else {
                let (is, asked) = if read_only { ("read-write", "read-only") } else { ("read-only", "read-write") };
                Err(Error::new(
                    Kind::Conflict,
                    format!("it is published {is} at {target}, and {asked} was asked for: unpublish it there first"),
                ))
            };
        }
        let is_gone = match entry.block {
            Some(number) => self.node.numbered(self.call, number).await?.is_none(),
            // A device node that was shown here and has gone.
            None => entry.root.to_string_lossy().ends_with("//deleted"),
        };
        if is_gone || self.node.parts.mounter.pulse(self.call, &self.target).await? == Pulse::Dead {
            tracing::warn!(volume = %self.request.volume, %target, "a dead mount is taken away");
            unmount(self.node, self.call, &self.target).await?;
            return Ok(false);
        }
        Err(Error::new(
            Kind::Conflict,
            format!("{} is mounted at {target}, which is not this volume: unmount it", entry.source.display()),
        ))
    }

    /// Binds with flags of its own. The flags are set at a place of the driver's first and come along with the second
    /// bind: so the target is never, not for a moment and not after a crash, mounted with less. And mounts reach other
    /// mount namespaces, such as the host's, while a later change of their flags would not.
    async fn show_with(&self, source: &Path, shape: Shape, flags: MountFlags) -> Result<()> {
        let mounter = &*self.node.parts.mounter;
        let rehearsal = rehearsal_of(self.node, &self.request.volume, &self.target);
        self.clear_rehearsal(self.call).await?;
        place::make(self.call, &rehearsal, shape).await?;
        let shown = async {
            mounter.bind(self.call, source, &rehearsal).await?;
            mounter.set_flags(self.call, &rehearsal, flags).await?;
            mounter.bind(self.call, &rehearsal, &self.target).await
        };
        let shown = shown.await;
        if let Err(error) = self.clear_rehearsal(&Call::lasting(UNDO_TIME)).await {
            tracing::warn!(volume = %self.request.volume, %error, "left to unpublishing");
        }
        shown
    }

    async fn clear_rehearsal(&self, call: &Call) -> Result<()> {
        clear(self.node, call, &rehearsal_of(self.node, &self.request.volume, &self.target)).await
    }

    /// Takes away what was made for a mount that failed.
    async fn or_undo(&self, shown: Result<()>, made: bool) -> Result<()> {
        let Err(error) = shown else { return Ok(()) };
        let call = Call::lasting(UNDO_TIME);
        let undone = match made {
            true => clear(self.node, &call, &self.target).await,
            false => unmount(self.node, &call, &self.target).await,
        };
        if let Err(error) = undone {
            tracing::warn!(volume = %self.request.volume, %error, "left to unpublishing");
        }
        Err(error)
    }

    fn is_read_only(&self) -> bool {
        self.request.read_only || self.request.capability.mode.is_read_only()
    }

    fn not_staged(&self, staging_path: &Path) -> Error {
        Error::wrong_state(format!(
            "nothing of volume {} is mounted at {}: stage it first",
            self.request.volume,
            staging_path.display()
        ))
    }
}

fn check_against(record: &Record, request: &PublishRequest, staging_path: &Path) -> Result<()> {
    if !record.staged {
        return Err(Error::wrong_state("it is not staged to the end: stage it again first"));
    }
    if record.staging_path != staging_path {
        return Err(Error::wrong_state(format!(
            "it is staged at {}, not at {}",
            record.staging_path.display(),
            staging_path.display()
        )));
    }
    match (&record.kind, &request.capability.kind) {
        (AccessKind::Block, AccessKind::Mount { .. }) => Err(Error::wrong_state("it is staged as raw block")),
        (AccessKind::Mount { .. }, AccessKind::Block) => Err(Error::wrong_state("it is staged with a file system")),
        _ => Ok(()),
    }
}

fn flags_of(entry: &MountEntry) -> Result<MountFlags> {
    // Which access times are kept is left to what is shown: the kernel takes that over by itself.
    let times = MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME;
    Ok(MountOptions::parse(entry.options.iter().map(String::as_str))?.mount_flags() - times)
}

/// Where flags are set before the volume is shown at a target.
fn rehearsal_of(node: &Node, volume: &VolumeId, target: &Path) -> PathBuf {
    let name = format!("{}-{:016x}", file_name(volume.as_str()), digest(target.as_os_str().as_bytes()));
    rehearsals(node).join(name)
}

fn rehearsals(node: &Node) -> PathBuf {
    node.parts.plugin_dir.join("publishing")
}
