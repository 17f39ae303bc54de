//! Staging: a connected, proven device with a file system, mounted once on this node; and the way back.
//!
//! The story: record, connect, prove, probe, format if blank, check, mount, grow. When a step fails, what this call did
//! is undone. When the process dies, the record is left and the next call takes it up: everything here looks before it acts.

use super::connector::{Connector, Link, Share, Source};
use super::device::Device;
use super::filesystem::probe::{Content, probe};
use super::filesystem::{Filesystem, Growth, Tools, fills, mkfs_options, superblock};
use super::fuse::{self, KeyFile};
use super::mount::options::MountOptions;
use super::mount::system::errno;
use super::mount::{Mount, Pulse, place};
use super::record::{Record, file_name};
use super::{Node, StageRequest, blocking};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::Command;
use crate::model::{AccessKind, KIND_CEPHFS, VolumeId};
use nix::errno::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a program that mounts a share may take.
const HELPER_LIMIT: Duration = Duration::from_secs(100);

/// The key of the `volume_context` that has mount options for CephFS.
const CEPHFS_OPTIONS_CONTEXT: &str = "cephfs-kernelMountOptions";

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
                let options: Vec<String> = share_options(request).chain(options.iter().cloned()).collect();
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
        let mut was_staged = false;
        if let Some(earlier) = node.records.load(call, &request.volume).await? {
            check_against(node, call, &earlier, &record).await?;
            was_staged = earlier.staged;
            record.formatting = earlier.formatting;
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
        if is_ours && is_alive {
            if entry.is_read_only() != self.wants_read_only() {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("{} is staged there with another access mode", self.link.volume),
                ));
            }
            if !self.record.staged || (self.record.device.is_none() && entry.block.is_some() && device.is_some()) {
                // The process died after the mount, or another driver staged it.
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
        place::unmount_all(&*self.node.parts.mounter, &self.node.parts.host, self.call, &self.path).await?;
        Ok(false)
    }

    async fn run(&mut self) -> Result<()> {
        let source = self.connector.connect(self.call, &self.link).await?;
        match source {
            Source::Block(device) => {
                let held = self.hold(&device).await?;
                let device = self.make_writable(device).await?;
                if !self.record.device.as_ref().is_some_and(|earlier| earlier.is_same_disk(&device)) {
                    // What was begun on another disk, or before this one was away, gives no right to overwrite.
                    self.record.formatting = None;
                }
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
        self.record.formatting = None;
        self.node.records.save(self.call, &self.record).await
    }

    /// Opens the device's node and makes sure that it is that device. As long as it is open, the kernel gives its name and
    /// number to no other disk.
    async fn hold(&self, device: &Device) -> Result<File> {
        let path = device.path.clone();
        let held = blocking::run(self.call, &format!("open {}", path.display()), move || {
            File::open(&path).map_err(|error| {
                Error::new(
                    Kind::Unavailable,
                    format!("open {}: is the host's /dev mounted into the driver's container?", path.display()),
                )
                .because(error)
            })
        })
        .await?;
        let number = self.node.parts.mounter.block_device(self.call, &device.path).await?;
        if number == Some(device.number) {
            Ok(held)
        } else {
            Err(Error::wrong_state(format!(
                "{} is not the device {} that the kernel calls {}: it was replaced, or /dev is not the host's",
                device.path.display(),
                device.number,
                device.name
            )))
        }
    }

    /// Lets the kernel refuse writes if only reading is wanted, and take them otherwise.
    async fn make_writable(&self, device: Device) -> Result<Device> {
        if device.read_only == self.read_only {
            return Ok(device);
        }
        let how = if self.read_only { "--setro" } else { "--setrw" };
        let command = Command::new("blockdev").arg(how).arg(&device.path).to_the_end();
        self.node.parts.exec.run(self.call, command).await?.success()?;
        let now = self.prove_again(&device).await?;
        if now.read_only == self.read_only {
            Ok(now)
        } else {
            Err(Error::wrong_state(format!(
                "{} cannot be written to: volume {} is attached read-only",
                device.path.display(),
                self.link.volume
            )))
        }
    }

    /// Makes sure once more that a device is the volume.
    async fn prove_again(&self, device: &Device) -> Result<Device> {
        match self.connector.locate(self.call, &self.link).await? {
            Some(Source::Block(now)) if now.is_same_disk(device) && now.size == device.size => Ok(now),
            _ => Err(Error::wrong_state(format!(
                "{} is no longer volume {}: it went away or was replaced while it was being staged",
                device.path.display(),
                self.link.volume
            ))),
        }
    }

    async fn mount_device(&mut self, mounting: &Mounting, device: &Device) -> Result<()> {
        let (filesystem, is_new) = self.find_or_make(mounting, device).await?;
        let tools = self.tools();
        let mut is_smaller = false;
        if !is_new && !self.read_only {
            filesystem.check(&tools, &device.path).await?;
            is_smaller = !fills(filesystem.size(&tools, &device.path).await?, device.size);
        }
        let mount = self.mount_of(&*filesystem, mounting, device)?;
        self.mount_proven(&*filesystem, &mount, device).await?;
        if is_smaller && !mount.options.is_read_only() {
            self.grow(&*filesystem, &mount, device).await?;
        }
        Ok(())
    }

    /// The file system on the device, and whether it was made just now.
    async fn find_or_make(&mut self, mounting: &Mounting, device: &Device) -> Result<(Arc<dyn Filesystem>, bool)> {
        let path = device.path.display();
        let content = probe(&self.tools(), device).await?;
        let began = self.record.formatting.clone();
        match content {
            Content::Blank => {
                self.format(mounting, device, false).await?;
                Ok((mounting.wanted.clone(), true))
            }
            Content::Filesystem { kind, .. }
                if kind == "xfs" && began.as_deref() == Some("xfs") && self.is_unfinished_xfs(device).await? =>
            {
                self.format(mounting, device, true).await?;
                Ok((mounting.wanted.clone(), true))
            }
            Content::Filesystem { kind, .. } if kind == mounting.wanted.name() => Ok((mounting.wanted.clone(), false)),
            Content::Filesystem { kind, .. } if !mounting.is_asked_for => {
                let known = self.node.parts.filesystems.get(&kind);
                let filesystem = known.map_err(|error| error.as_kind(Kind::WrongState).during(format!("{path}")))?;
                Ok((filesystem, false))
            }
            Content::Filesystem { kind, .. } => Err(Error::wrong_state(format!(
                "{path} holds a file system of type {kind}, and {} was asked for: it is not overwritten; \
                 set fsType to {kind}, or use another volume",
                mounting.wanted.name()
            ))),
            // Only our own attempt can have left this: the device was proven blank before it, and no signature was
            // finished since.
            Content::Unknown(why) if began.is_some() => {
                tracing::warn!(volume = %self.link.volume, why, "an interrupted mkfs is done again");
                self.format(mounting, device, true).await?;
                Ok((mounting.wanted.clone(), true))
            }
            Content::Other(what) => Err(Error::wrong_state(format!(
                "{path} holds {what}: it is neither formatted nor mounted; use the volume as raw block, or another volume"
            ))),
            Content::Unknown(why) | Content::Unreadable(why) => Err(Error::wrong_state(format!(
                "{path} is not formatted, since it is not certain that it is blank: {why}. If there is nothing of value \
                 on the volume, clear it (`blkdiscard -z` or `dd if=/dev/zero`), or delete it and make another"
            ))),
        }
    }

    async fn is_unfinished_xfs(&self, device: &Device) -> Result<bool> {
        let path = device.path.clone();
        blocking::run(self.call, "read the superblock", move || {
            superblock::is_unfinished_xfs(&path)
                .map_err(|error| Error::internal(format!("read {}", path.display())).because(error))
        })
        .await
    }

    /// Makes a file system. Everything that could make this the wrong device is looked at once more.
    async fn format(&mut self, mounting: &Mounting, device: &Device, again: bool) -> Result<()> {
        if self.read_only {
            return Err(Error::wrong_state(format!(
                "volume {} is blank and is to be used read-only: nothing could ever be read from it",
                self.link.volume
            )));
        }
        let began = self.record.formatting.replace(mounting.wanted.name().to_owned());
        self.node.records.save(self.call, &self.record).await?;
        if let Err(error) = self.prove_again(device).await.and_then(|_| self.call.check("make a file system")) {
            self.record.formatting = began;
            return Err(error);
        }
        tracing::info!(
            volume = %self.link.volume,
            device = %device.path.display(),
            filesystem = mounting.wanted.name(),
            "a blank device gets a file system"
        );
        let made = mounting.wanted.format(&self.tools(), &device.path, &mounting.mkfs_options, again).await;
        match &made {
            Ok(()) => self.record.formatting = None,
            Err(error) if error.is(Kind::WrongState) => self.record.formatting = began,
            Err(_) => {}
        }
        made
    }

    fn mount_of(&self, filesystem: &dyn Filesystem, mounting: &Mounting, device: &Device) -> Result<Mount> {
        let always = filesystem.mount_options().iter().copied();
        let own = self.read_only.then_some("ro");
        let options = MountOptions::parse(always.chain(mounting.options.iter().map(String::as_str)).chain(own))?;
        Ok(Mount {
            source: device.path.clone(),
            target: self.path.clone(),
            fstype: filesystem.name().to_owned(),
            options,
            secret: None,
        })
    }

    /// Mounts, and makes sure that what is mounted is this device.
    async fn mount_proven(&mut self, filesystem: &dyn Filesystem, mount: &Mount, device: &Device) -> Result<()> {
        place::make(self.call, &self.path, place::Shape::Directory).await?;
        match self.mount(mount).await {
            Err(error) if errno(&error) == Some(Errno::EEXIST) => {
                // A copy of a file system that is mounted already.
                if !filesystem.make_distinct(&self.tools(), &device.path).await? {
                    return Err(error);
                }
                self.mount(mount).await?;
            }
            other => other?,
        }
        let table = self.node.parts.mounter.table(self.call).await?;
        match table.top(&self.path).and_then(|entry| entry.block) {
            Some(number) if number == device.number => Ok(()),
            other => Err(Error::wrong_state(format!(
                "mounting {} ({}) gave {}: another device with a file system of the same UUID?",
                device.path.display(),
                device.number,
                other.map_or_else(|| "no block device".to_owned(), |number| format!("device {number}"))
            ))),
        }
    }

    async fn mount(&mut self, mount: &Mount) -> Result<()> {
        self.mount_pending = true;
        let result = self.node.parts.mounter.mount(self.call, mount).await;
        // A refusal is an outcome; no answer in time is none.
        self.mount_pending = result.as_ref().is_err_and(|error| error.is(Kind::Unavailable));
        result.map_err(|error| refused(error, mount))
    }

    async fn mount_share(&mut self, mounting: &Mounting, share: &Share) -> Result<()> {
        place::make(self.call, &self.path, place::Shape::Directory).await?;
        let own = self.read_only.then_some("ro");
        let wanted: Vec<&str> = share.options.iter().chain(&mounting.options).map(String::as_str).chain(own).collect();
        let mount = Mount {
            source: PathBuf::from(&share.source),
            target: self.path.clone(),
            fstype: share.fstype.clone(),
            options: MountOptions::parse(wanted.iter().copied())?,
            secret: share.secret.clone(),
        };
        let fuse = mounting.fuse.as_ref().filter(|_| share.fstype == "ceph");
        let is_there = |program: &str| self.node.parts.exec.finds(program);
        match (fuse, share.helper.filter(|helper| is_there(helper))) {
            (Some(options), _) if is_there(fuse::PROGRAM) => self.mount_by_fuse(share, options).await?,
            (_, Some(helper)) => self.mount_by(helper, share, &wanted).await?,
            (fuse, None) => {
                if fuse.is_some() {
                    tracing::warn!(volume = %self.link.volume, "ceph-fuse is not installed here: the kernel mounts");
                }
                self.mount(&mount).await.map_err(|error| share_refused(error, share))?;
            }
        }
        let table = self.node.parts.mounter.table(self.call).await?;
        self.record.mounted = table.top(&self.path).map(|entry| entry.device);
        if self.record.mounted.is_none() {
            return Err(Error::internal(format!("{} is not mounted after it was", self.path.display())));
        }
        Ok(())
    }

    /// Mounts a share by its file system's own program.
    async fn mount_by(&mut self, helper: &str, share: &Share, options: &[&str]) -> Result<()> {
        self.call.check("mount a share")?;
        // Programs resolve names by themselves.
        let options: Vec<&str> =
            options.iter().copied().filter(|option| !option.is_empty() && !option.starts_with("addr=")).collect();
        let mut command = Command::new(helper).arg(&share.source).arg(&self.path);
        if !options.is_empty() {
            command = command.arg("-o").arg(options.join(","));
        }
        self.run_mount(command, share).await
    }

    async fn mount_by_fuse(&mut self, share: &Share, options: &str) -> Result<()> {
        self.call.check("mount a share")?;
        let path = self.node.parts.plugin_dir.join("keys").join(file_name(self.link.volume.as_str()));
        let copy = share.clone();
        let key = blocking::run(self.call, "write a key for ceph-fuse", move || {
            KeyFile::write(path, &copy).map_err(|error| Error::internal("write a key for ceph-fuse").because(error))
        })
        .await?;
        let command = fuse::command(share, &self.path, key.path(), options, self.read_only)?;
        let mounted = self.run_mount(command, share).await;
        drop(key);
        mounted
    }

    async fn run_mount(&mut self, command: Command, share: &Share) -> Result<()> {
        self.mount_pending = true;
        let ended = self.node.parts.exec.run(self.call, command.limit(HELPER_LIMIT).to_the_end()).await;
        self.mount_pending =
            ended.as_ref().is_err_and(|error| matches!(error.kind(), Kind::Unavailable | Kind::Deadline));
        ended?.success().map(drop).map_err(|error| {
            error
                .as_kind(Kind::Unavailable)
                .during(format!("mount {}: see whether the server can be reached and lets this node in", share.source))
        })
    }

    async fn grow(&mut self, filesystem: &dyn Filesystem, mount: &Mount, device: &Device) -> Result<()> {
        let size = match filesystem.grow(&self.tools(), &device.path, &self.path).await? {
            Growth::Done => filesystem.mounted_size(&self.tools(), &device.path, &self.path).await?,
            Growth::NotMounted(why) => {
                tracing::info!(volume = %self.link.volume, why, "grown while it is not mounted");
                place::unmount_all(&*self.node.parts.mounter, &self.node.parts.host, self.call, &self.path).await?;
                filesystem.grow_unmounted(&self.tools(), &device.path).await?;
                let size = filesystem.size(&self.tools(), &device.path).await?;
                self.mount_proven(filesystem, mount, device).await?;
                size
            }
        };
        if fills(size, device.size) {
            Ok(())
        } else {
            Err(Error::internal(format!(
                "the {} on {} has {size} after it was grown, and the device {}",
                filesystem.name(),
                device.path.display(),
                device.size
            )))
        }
    }

    fn wants_read_only(&self) -> bool {
        let options = self.mounting.iter().flat_map(|mounting| mounting.options.iter().map(String::as_str));
        self.read_only || MountOptions::parse(options).is_ok_and(|options| options.is_read_only())
    }

    fn tools(&self) -> Tools<'a> {
        Tools { exec: &*self.node.parts.exec, call: self.call }
    }

    /// Undoes what this call did. What cannot be undone now stays in the record, for the next call or for unstaging.
    async fn undo(&mut self) {
        if self.was_staged || self.mount_pending {
            return;
        }
        let call = Call::lasting(UNDO_TIME);
        if let Err(error) = self.undo_all(&call).await {
            tracing::warn!(volume = %self.link.volume, %error, "a failed staging was not undone to the end");
        }
    }

    async fn undo_all(&self, call: &Call) -> Result<()> {
        place::unmount_all(&*self.node.parts.mounter, &self.node.parts.host, call, &self.path).await?;
        self.connector.disconnect(call, &self.link).await?;
        if self.record.formatting.is_some() {
            // An mkfs may have been interrupted: the next call has to know.
            return Ok(());
        }
        self.node.records.remove(call, &self.link.volume).await
    }
}

/// Mount options that the class had for this kind of share.
fn share_options(request: &StageRequest) -> impl Iterator<Item = String> {
    let is_cephfs = request.connection.kind.eq_ignore_ascii_case(KIND_CEPHFS);
    let options = request.volume_context.get(CEPHFS_OPTIONS_CONTEXT).filter(|_| is_cephfs);
    options.into_iter().filter(|options| !options.is_empty()).cloned()
}

/// Says what a refused mount of a share means.
fn share_refused(error: Error, share: &Share) -> Error {
    let source = &share.source;
    let (kind, words) = match errno(&error) {
        // The kernel's CephFS says this of a wrong key, a key that was revoked and a file system that is not there.
        Some(Errno::EHOSTUNREACH) if share.fstype == "ceph" => (
            Kind::Unavailable,
            format!(
                "{source}: no monitor can be reached, or Ceph does not know the key; the node's kernel log says which"
            ),
        ),
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ECONNREFUSED | Errno::ETIMEDOUT | Errno::EHOSTDOWN) => {
            (Kind::Unavailable, format!("{source}: the server cannot be reached from this node"))
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            (Kind::Unavailable, format!("{source}: the server does not let this node in (any more, or not yet)"))
        }
        Some(Errno::ENOENT | Errno::ESTALE) => {
            (Kind::Unavailable, format!("{source}: the server does not show this path to this node"))
        }
        _ => return error,
    };
    error.as_kind(kind).during(words)
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

/// Says what a refused mount means.
fn refused(error: Error, mount: &Mount) -> Error {
    let source = mount.source.display();
    let (kind, words) = match errno(&error) {
        Some(Errno::EUCLEAN | Errno::EIO | Errno::EBADMSG) => (
            Kind::WrongState,
            format!("the {} on {source} is damaged; repair it by hand, or restore a snapshot", mount.fstype),
        ),
        Some(Errno::EINVAL) => (
            Kind::WrongState,
            format!(
                "the kernel refused the {} on {source} or its mount options ({})",
                mount.fstype, mount.options.data
            ),
        ),
        Some(Errno::ENODEV) => (Kind::WrongState, format!("this node's kernel has no {}", mount.fstype)),
        Some(Errno::EACCES | Errno::EROFS) => {
            (Kind::WrongState, format!("{source} cannot be written to, which mounting its {} needs", mount.fstype))
        }
        Some(Errno::EBUSY) => (Kind::Busy, format!("{source} is in use by something else on this node")),
        _ => return error,
    };
    error.as_kind(kind).during(words)
}

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
    let Some(record) = record else { return Ok(()) };
    if let Some(device) = &record.device {
        refuse_if_mounted(node, call, volume, device).await?;
    }
    let (connector, link) = node.link(volume, Some(&record))?;
    if link.is_read_only()
        && let Some(Source::Block(device)) = connector.locate(call, &link).await?
        && device.read_only
    {
        // Whoever gets the disk next under this driver may write.
        let command = Command::new("blockdev").arg("--setrw").arg(&device.path).to_the_end();
        node.parts.exec.run(call, command).await?;
    }
    connector.disconnect(call, &link).await?;
    node.records.remove(call, volume).await
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
