//! A device that was proven to be the volume: its file system is found, or made if it is blank, checked, mounted and grown.

use super::{Mounting, Staging};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::Command;
use crate::node::blocking;
use crate::node::connector::Source;
use crate::node::device::Device;
use crate::node::filesystem::probe::{Content, probe};
use crate::node::filesystem::{Filesystem, Growth, fills, superblock};
use crate::node::mount::options::MountOptions;
use crate::node::mount::system::errno;
use crate::node::mount::{Mount, place};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the kernel may show a disk, and its node, that it does not serve yet.
const NOT_YET: Duration = Duration::from_secs(10);

/// The pause between two attempts to open it.
const PAUSE: Duration = Duration::from_millis(20);

/// Opens the node of a device.
async fn open(call: &Call, path: &Path) -> Result<File> {
    let doing = format!("open {}", path.display());
    let end = Instant::now() + NOT_YET;
    loop {
        let at = path.to_owned();
        match blocking::run(call, &doing, move || Ok(File::open(&at))).await? {
            Ok(held) => return Ok(held),
            // A new disk is in sysfs and /dev a moment before it can be opened.
            Err(error) if is_not_served(&error) && Instant::now() < end => call.sleep(&doing, PAUSE).await?,
            Err(error) => {
                let why = if is_not_served(&error) {
                    "the kernel shows it and does not serve it"
                } else {
                    "is the host's /dev mounted into the driver's container?"
                };
                return Err(Error::new(Kind::Unavailable, format!("{doing}: {why}")).because(error));
            }
        }
    }
}

fn is_not_served(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENXIO as i32)
}

impl Staging<'_> {
    /// Opens the device's node and makes sure that it is that device. As long as it is open, the kernel gives its name and
    /// number to no other disk.
    pub(super) async fn hold(&self, device: &Device) -> Result<File> {
        let held = open(self.call, &device.path).await?;
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
    pub(super) async fn make_writable(&self, device: Device) -> Result<Device> {
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

    pub(super) async fn mount_device(&mut self, mounting: &Mounting, device: &Device) -> Result<()> {
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

    pub(super) async fn mount(&mut self, mount: &Mount) -> Result<()> {
        self.mount_pending = true;
        let result = self.node.parts.mounter.mount(self.call, mount).await;
        // A refusal is an outcome; no answer in time is none.
        self.mount_pending = result.as_ref().is_err_and(|error| error.is(Kind::Unavailable));
        result.map_err(|error| refused(error, mount))
    }

    async fn grow(&mut self, filesystem: &dyn Filesystem, mount: &Mount, device: &Device) -> Result<()> {
        let size = match filesystem.grow(&self.tools(), &device.path, &self.path).await? {
            Growth::Done => filesystem.mounted_size(&self.tools(), &device.path, &self.path).await?,
            Growth::NotMounted(why) => {
                tracing::info!(volume = %self.link.volume, why, "grown while it is not mounted");
                self.unmount(self.call).await?;
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

#[cfg(test)]
mod tests {
    use super::open;
    use crate::call::Call;
    use crate::error::Kind;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    #[tokio::test]
    async fn a_disk_that_is_not_served_yet_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sda");
        // A socket cannot be opened either, for the same reason.
        let socket = UnixListener::bind(&path).unwrap();
        let call = Call::lasting(Duration::from_secs(60));
        let opening = tokio::spawn({
            let (call, path) = (call.clone(), path.clone());
            async move { open(&call, &path).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!opening.is_finished(), "it is not given up at once");
        let disk = directory.path().join("new");
        std::fs::File::create(&disk).unwrap().write_all(b"disk").unwrap();
        std::fs::rename(&disk, &path).unwrap();
        let mut content = String::new();
        opening.await.unwrap().unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "disk");
        drop(socket);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_is_never_served_is_not_waited_for_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sda");
        let _socket = UnixListener::bind(&path).unwrap();
        let error = open(&Call::lasting(Duration::from_secs(60)), &path).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("does not serve it"), "{error}");
        let error = open(&Call::lasting(Duration::from_secs(60)), &directory.path().join("none")).await.unwrap_err();
        assert!(error.to_string().contains("/dev"), "{error}");
    }
}
