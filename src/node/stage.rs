//! Staging: a connected, proven device with a file system, or a share, mounted once on this node. The way back is
//! [`super::unstage`].
//!
//! The story: record, connect, prove, probe, format if blank, check, mount, grow. When a step fails, what this call did
//! is undone. When the process dies, the record is left and the next call takes it up: everything here looks before it acts.

mod device;
mod share;

use super::connector::{Connector, Link, Source};
use super::device::Device;
use super::filesystem::{Filesystem, Tools, mkfs_options};
use super::fuse;
use super::mount::options::MountOptions;
use super::mount::{Pulse, place};
use super::record::Record;
use super::unstage::{refuse_if_mounted, unless_never_here};
use super::{Node, StageRequest, blocking};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::AccessKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The time that undoing a failed staging gets, since the caller's own may be over.
const UNDO_TIME: Duration = Duration::from_secs(60);

/// Makes the volume ready on this machine.
///
/// # Errors
/// See [`Node::stage`].
pub async fn stage(node: &Node, call: &Call, request: &StageRequest) -> Result<()> {
    let mut staging = Staging::plan(node, call, request).await?;
    if staging.is_done().await? {
        return Ok(());
    }
    if staging.mounting.is_some() {
        // Nothing is mounted now. Should this call be killed, the next one is not to take what it left for the whole.
        staging.record.staged = false;
    }
    node.records.save(call, &staging.record).await?;
    match staging.run().await {
        Ok(()) => Ok(()),
        Err(error) => {
            staging.undo().await;
            Err(error.during(format!("stage volume {}", request.volume)))
        }
    }
}

/// One call to stage a volume.
struct Staging<'a> {
    node: &'a Node,
    call: &'a Call,
    connector: Arc<dyn Connector>,
    link: Link,
    /// Where, without symbolic links.
    path: PathBuf,
    /// The file system and how to mount it; none for raw block.
    mounting: Option<Mounting>,
    read_only: bool,
    record: Record,
    /// Whether an earlier call began to stage it and did not come to the end, so that nobody can be using it.
    was_begun: bool,
    /// Whether an earlier call staged it to the end, so that somebody may be using it.
    was_staged: bool,
    /// Whether a mount was begun whose outcome is not known.
    mount_pending: bool,
}

/// As what a mounted volume is to be mounted.
struct Mounting {
    /// What was asked for, or the driver's default.
    wanted: Arc<dyn Filesystem>,
    /// Whether it was asked for: then nothing else will do.
    is_asked_for: bool,
    options: Vec<String>,
    mkfs_options: Vec<String>,
    /// The options of ceph-fuse, where that is asked for.
    fuse: Option<String>,
}

impl<'a> Staging<'a> {
    /// Looks at the request and the record, and finds everything that is wrong before anything is done.
    async fn plan(node: &'a Node, call: &'a Call, request: &StageRequest) -> Result<Self> {
        let connector = node.parts.connectors.get(&request.connection.kind)?;
        let mut secrets = request.secrets.clone();
        secrets.extend(node.parts.keychain.open(&request.volume, &request.connection)?);
        let mounting = match &request.capability.kind {
            AccessKind::Block => None,
            AccessKind::Mount { fstype, options, .. } => {
                let options: Vec<String> = share::options_of_class(request).chain(options.iter().cloned()).collect();
                MountOptions::parse(options.iter().map(String::as_str))?;
                // A share has the file system of its server, whatever the orchestrator's default says.
                let asked = fstype.as_deref().filter(|name| !name.is_empty() && !connector.has_shares());
                Some(Mounting {
                    wanted: node.parts.filesystems.get(asked.unwrap_or(&node.parts.default_fstype))?,
                    is_asked_for: asked.is_some(),
                    options,
                    mkfs_options: mkfs_options(&request.volume_context)?,
                    fuse: fuse::asked_for(&request.volume_context),
                })
            }
        };
        let path = place::resolve(call, &request.staging_path).await?;
        let mut record = Record::new(
            request.volume.clone(),
            request.connection.clone(),
            path.clone(),
            request.capability.mode,
            request.capability.kind.clone(),
        );
        let (mut was_begun, mut was_staged) = (false, false);
        if let Some(earlier) = node.records.load(call, &request.volume).await? {
            check_against(node, call, &earlier, &record).await?;
            (was_begun, was_staged) = (!earlier.staged, earlier.staged);
            record.formatting = earlier.formatting;
            record.formatting_boot = earlier.formatting_boot;
            record.staged = earlier.staged;
            record.device = earlier.device;
            record.mounted = earlier.mounted;
        }
        let link = Link {
            volume: request.volume.clone(),
            connection: request.connection.clone(),
            secrets,
            mode: request.capability.mode,
            device: record.device.clone(),
        };
        Ok(Self {
            node,
            call,
            connector,
            read_only: link.is_read_only(),
            link,
            path,
            mounting,
            record,
            was_begun,
            was_staged,
            mount_pending: false,
        })
    }

    /// Whether the volume is staged here already. What is left here of a dead file system is cleared away.
    async fn is_done(&mut self) -> Result<bool> {
        let table = self.node.parts.mounter.table(self.call).await?;
        let Some(entry) = table.top(&self.path) else { return Ok(false) };
        if self.mounting.is_none() {
            return Err(Error::new(
                Kind::Conflict,
                format!("{} has a file system mounted, and raw block access was asked for", self.path.display()),
            ));
        }
        let (is_ours, device) = match self.connector.locate(self.call, &self.link).await? {
            Some(Source::Block(device)) => (entry.block == Some(device.number), Some(device)),
            Some(Source::Share(share)) => {
                // A helper may have mounted it under another name; then the number that was noted tells.
                let is_noted = self.record.staged && self.record.mounted == Some(entry.device);
                (is_noted || entry.source == Path::new(&share.source), None)
            }
            None => (false, None),
        };
        let is_gone = match entry.block {
            Some(number) => self.node.numbered(self.call, number).await?.is_none(),
            None => false,
        };
        // Such a mount does not say of which share it is, and nobody uses it before it is staged to the end.
        let is_unfinished = entry.fstype == fuse::FSTYPE && !self.record.staged;
        let is_alive =
            !is_gone && !is_unfinished && self.node.parts.mounter.pulse(self.call, &self.path).await? == Pulse::Alive;
        if is_ours && is_alive && self.was_begun {
            tracing::info!(volume = %self.link.volume, "mounted by a call that was interrupted: it is staged anew");
            self.unmount(self.call).await?;
            return Ok(false);
        }
        if is_ours && is_alive {
            if entry.is_read_only() != self.wants_read_only(&entry.fstype) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("{} is staged there with another access mode", self.link.volume),
                ));
            }
            if !self.record.staged || (self.record.device.is_none() && entry.block.is_some() && device.is_some()) {
                // Another driver staged it.
                self.record.device = device;
                self.finish().await?;
            }
            return Ok(true);
        }
        if is_alive {
            return Err(Error::wrong_state(format!(
                "{} is mounted on {}, and is not volume {}: unmount it if it is not needed",
                entry.source.display(),
                self.path.display(),
                self.link.volume
            )));
        }
        tracing::warn!(volume = %self.link.volume, path = %self.path.display(), "a dead mount is taken away");
        self.unmount(self.call).await?;
        Ok(false)
    }

    /// Takes all mounts from the staging path.
    async fn unmount(&self, call: &Call) -> Result<()> {
        place::unmount_all(&*self.node.parts.mounter, &self.node.parts.host, call, &self.path).await.map(drop)
    }

    async fn run(&mut self) -> Result<()> {
        let source = self.connector.connect(self.call, &self.link).await?;
        match source {
            Source::Block(device) => {
                let held = self.hold(&device).await?;
                let device = self.make_writable(device).await?;
                self.forget_formatting_of_another(&device).await?;
                self.remember(&device).await?;
                match self.mounting.take() {
                    Some(mounting) => self.mount_device(&mounting, &device).await?,
                    None => tracing::debug!(device = %device.path.display(), "raw block: nothing to mount"),
                }
                drop(held);
            }
            Source::Share(share) => match self.mounting.take() {
                Some(mounting) => self.mount_share(&mounting, &share).await?,
                None => return Err(Error::invalid("access_type block: a share is no block device")),
            },
        }
        self.finish().await
    }

    /// What was begun on another disk, or before this one was away, gives no right to overwrite: somebody may have used it
    /// meanwhile. Only the kernel's count of disks tells that this one never was away, and only until the next boot.
    async fn forget_formatting_of_another(&mut self, device: &Device) -> Result<()> {
        let host = self.node.parts.host.clone();
        let boot = blocking::run(self.call, "read which boot this is", move || {
            host.boot().map_err(|error| Error::internal("read the kernel's boot_id").because(error))
        });
        let boot = boot.await?;
        let is_same = |earlier: &Device| earlier.sequence.is_some() && earlier.is_same_disk(device);
        let is_same_boot = boot.is_some() && self.record.formatting_boot == boot;
        if !(is_same_boot && self.record.device.as_ref().is_some_and(is_same)) {
            self.record.formatting = None;
        }
        self.record.formatting_boot = boot;
        Ok(())
    }

    /// Notes which device was proven to be the volume. Where it has an identity of its own, that is what tells the volume
    /// from another one that takes its place, so it has to survive a crash from now on.
    async fn remember(&mut self, device: &Device) -> Result<()> {
        let is_news =
            device.wwid.is_some() && self.record.device.as_ref().map(|known| &known.wwid) != Some(&device.wwid);
        self.record.device = Some(device.clone());
        self.link.device = Some(device.clone());
        if is_news { self.node.records.save(self.call, &self.record).await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<()> {
        self.record.staged = true;
        (self.record.formatting, self.record.formatting_boot) = (None, None);
        self.node.records.save(self.call, &self.record).await
    }

    /// Whether a mount of this type is to be read-only. The options for ceph-fuse are for its own mounts only.
    fn wants_read_only(&self, fstype: &str) -> bool {
        let Some(mounting) = &self.mounting else { return self.read_only };
        let options = MountOptions::parse(mounting.options.iter().map(String::as_str));
        let fuse = mounting.fuse.as_deref().filter(|_| fstype == fuse::FSTYPE);
        self.read_only || options.is_ok_and(|options| options.is_read_only()) || fuse.is_some_and(fuse::is_read_only)
    }

    fn tools(&self) -> Tools<'a> {
        Tools { exec: &*self.node.parts.exec, call: self.call }
    }

    /// Undoes what this call did. What cannot be undone now stays in the record, for the next call or for unstaging.
    async fn undo(&mut self) {
        if self.mount_pending {
            return;
        }
        let call = Call::lasting(UNDO_TIME);
        if let Err(error) = self.undo_all(&call).await {
            tracing::warn!(volume = %self.link.volume, %error, "a failed staging was not undone to the end");
        }
    }

    async fn undo_all(&self, call: &Call) -> Result<()> {
        // Nothing was mounted there when this call began.
        self.unmount(call).await?;
        if self.was_staged {
            return Ok(());
        }
        if let Some(device) = &self.record.device {
            refuse_if_mounted(self.node, call, &self.link.volume, device).await?;
        }
        unless_never_here(self.connector.disconnect(call, &self.link).await, &self.record)?;
        if self.record.formatting.is_some() {
            // An mkfs may have been interrupted: the next call has to know.
            return Ok(());
        }
        self.node.records.remove(call, &self.link.volume).await
    }
}

/// Compares a request with what is staged.
async fn check_against(node: &Node, call: &Call, earlier: &Record, now: &Record) -> Result<()> {
    if earlier.staging_path != now.staging_path {
        let table = node.parts.mounter.table(call).await?;
        let is_block = matches!(earlier.kind, AccessKind::Block) && earlier.staged;
        if is_block || table.top(&earlier.staging_path).is_some() {
            return Err(Error::wrong_state(format!(
                "volume {} is staged at {}: unstage it there first",
                now.volume,
                earlier.staging_path.display()
            )));
        }
        return Ok(());
    }
    let differs = |what: &str| {
        Err(Error::new(Kind::Conflict, format!("volume {} is staged at that path with another {what}", now.volume)))
    };
    match (&earlier.kind, &now.kind) {
        _ if !earlier.staged => Ok(()),
        (AccessKind::Block, AccessKind::Mount { .. }) | (AccessKind::Mount { .. }, AccessKind::Block) => {
            differs("access type")
        }
        (AccessKind::Mount { fstype: Some(old), .. }, AccessKind::Mount { fstype: Some(new), .. }) if old != new => {
            differs(&format!("file system ({old})"))
        }
        _ if earlier.mode.is_read_only() != now.mode.is_read_only() => differs("access mode"),
        _ => Ok(()),
    }
}
