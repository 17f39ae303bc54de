//! Mounting on the machine itself, through `sys-mount` and `nix`.

use super::table::MountTable;
use super::{Mount, Mounter, Pulse, Unmount};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::node::blocking::{self, Patience};
use crate::node::device::DeviceNumber;
use crate::node::{Stats, Usage};
use async_trait::async_trait;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{major, minor};
use nix::sys::statfs::FsType;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;
use sys_mount::MountFlags;

/// How long a mount or unmount may take: journals are replayed and caches written meanwhile.
const CHANGE_LIMIT: Duration = Duration::from_secs(100);

/// How long a look at a mounted file system may take.
const LOOK_LIMIT: Duration = Duration::from_secs(8);

/// The number by which statfs(2) tells a CephFS.
const CEPHFS: FsType = FsType(0x00c3_6400);

/// The kernel.
#[derive(Debug, Default)]
pub struct SystemMounter {
    patience: Patience,
    /// For detaching, which must not wait for whatever hangs at the same path.
    detaching: Patience,
}

#[async_trait]
impl Mounter for SystemMounter {
    async fn table(&self, call: &Call) -> Result<MountTable> {
        blocking::run(call, "read the mount table", || {
            let mut table = MountTable::parse(&read_mountinfo()?)?;
            for entry in table.entries_mut().filter(|entry| entry.fstype == "btrfs") {
                // The number of a btrfs is an anonymous one. Its source is a device node, whose number tells; it is
                // asked of the node as it is now, since the name may have gone to another disk meanwhile.
                entry.block = device_number(&entry.source).unwrap_or_default();
            }
            Ok(table)
        })
        .await
    }

    async fn mount(&self, call: &Call, mount: &Mount) -> Result<()> {
        let doing = format!("mount {} on {}", mount.source.display(), mount.target.display());
        call.check(&doing)?;
        call.step(&doing);
        let wanted = mount.clone();
        self.patience
            .run(CHANGE_LIMIT, &doing, &mount.target, move || {
                let data = match &wanted.secret {
                    Some(secret) => secret.onto(&wanted.options.data),
                    None => wanted.options.data.clone(),
                };
                sys_mount::Mount::builder()
                    .fstype(wanted.fstype.as_str())
                    .flags(wanted.options.flags)
                    .data(&data)
                    .mount(&wanted.source, &wanted.target)
                    .map(drop)
            })
            .await
    }

    async fn bind(&self, call: &Call, source: &Path, target: &Path) -> Result<()> {
        let doing = format!("bind {} to {}", source.display(), target.display());
        call.check(&doing)?;
        call.step(&doing);
        let (from, to) = (source.to_owned(), target.to_owned());
        self.patience
            .run(LOOK_LIMIT, &doing, target, move || {
                sys_mount::Mount::builder().fstype("none").flags(MountFlags::BIND).mount(from, to).map(drop)
            })
            .await
    }

    async fn set_flags(&self, call: &Call, target: &Path, flags: MountFlags) -> Result<()> {
        let doing = format!("set mount flags of {}", target.display());
        call.check(&doing)?;
        call.step(&doing);
        let to = target.to_owned();
        self.patience
            .run(LOOK_LIMIT, &doing, target, move || {
                let flags = flags | MountFlags::BIND | MountFlags::REMOUNT;
                sys_mount::Mount::builder().fstype("none").flags(flags).mount("", to).map(drop)
            })
            .await
    }

    async fn unmount(&self, call: &Call, target: &Path, how: Unmount) -> Result<()> {
        let doing = format!("unmount {}", target.display());
        call.check(&doing)?;
        call.step(&doing);
        // `sys_mount` has a wrong value for NOFOLLOW (that of open(2)), hence nix.
        let flags = match how {
            Unmount::Unused => MntFlags::UMOUNT_NOFOLLOW,
            Unmount::Detach => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
        };
        let at = target.to_owned();
        let patience = if how == Unmount::Detach { &self.detaching } else { &self.patience };
        let result = patience.run(CHANGE_LIMIT, &doing, target, move || Ok(umount2(&at, flags)?)).await;
        result.map_err(|error| match errno(&error) {
            Some(Errno::EBUSY) => error.as_kind(Kind::Busy),
            _ => error,
        })
    }

    async fn statistics(&self, call: &Call, path: &Path) -> Result<Stats> {
        let doing = format!("read the statistics of {}", path.display());
        let at = path.to_owned();
        let look = self.patience.run(LOOK_LIMIT, &doing, path, move || Ok(nix::sys::statvfs::statvfs(&at)?));
        let numbers = call.bound(&doing, look).await??;
        let bytes = |blocks: u64| blocks.saturating_mul(numbers.fragment_size());
        Ok(Stats {
            bytes: Usage {
                total: bytes(numbers.blocks()),
                available: bytes(numbers.blocks_available()),
                used: bytes(numbers.blocks().saturating_sub(numbers.blocks_free())),
            },
            // btrfs makes inodes as it needs them and says zero.
            inodes: (numbers.files() > 0).then(|| Usage {
                total: numbers.files(),
                available: numbers.files_available(),
                used: numbers.files().saturating_sub(numbers.files_free()),
            }),
        })
    }

    async fn pulse(&self, call: &Call, path: &Path) -> Result<Pulse> {
        let doing = format!("look at {}", path.display());
        let at = path.to_owned();
        let look = self.patience.run(LOOK_LIMIT, &doing, path, move || look_at(&at));
        match call.bound(&doing, look).await? {
            Ok(()) => Ok(Pulse::Alive),
            Err(error) if error.is(Kind::Unavailable) => Ok(Pulse::Hung),
            Err(error) => match errno(&error) {
                Some(errno) if is_dead(errno) => Ok(Pulse::Dead),
                Some(Errno::ENOENT | Errno::ENOTDIR) => Err(error.as_kind(Kind::NotFound)),
                _ => Err(error),
            },
        }
    }

    async fn block_device(&self, call: &Call, path: &Path) -> Result<Option<DeviceNumber>> {
        let doing = format!("look at {}", path.display());
        let at = path.to_owned();
        call.bound(&doing, self.patience.run(LOOK_LIMIT, &doing, path, move || device_number(&at))).await?
    }
}

/// What the system said when a mount or unmount failed.
#[must_use]
pub fn errno(error: &Error) -> Option<Errno> {
    error.cause::<io::Error>().and_then(io::Error::raw_os_error).map(Errno::from_raw)
}

/// Whether the system says that a file system is shut down, or that what is below it is gone.
#[must_use]
pub fn is_dead(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EIO
            | Errno::ESTALE
            | Errno::ENOTCONN
            | Errno::ENXIO
            | Errno::ENODEV
            | Errno::ESHUTDOWN
            | Errno::EHOSTDOWN
            | Errno::EUCLEAN
    )
}

/// Asks the file system at a path something that it cannot answer from a cache.
fn look_at(path: &Path) -> io::Result<()> {
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let look = || -> io::Result<()> {
        if std::fs::metadata(path)?.is_dir() {
            // An XFS that is shut down still answers stat from its cache; opening and listing asks it really.
            match std::fs::read_dir(path).and_then(|mut entries| entries.next().transpose()) {
                // A server may not let root read. Ceph always does, unless it has shut this client out.
                Err(error) if is_refused(&error) && !is_cephfs(path) => {}
                other => other.map(drop)?,
            }
            // An NFS server is asked only by this.
            nix::sys::statvfs::statvfs(path)?;
        }
        Ok(())
    };
    // All but reading needs no permission: who is refused that is not let in any more.
    look().map_err(|error| if is_refused(&error) { Errno::ESHUTDOWN.into() } else { error })
}

fn is_cephfs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type() == CEPHFS)
}

fn device_number(path: &Path) -> io::Result<Option<DeviceNumber>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => {
            Ok(Some(DeviceNumber { major: major(metadata.rdev()), minor: minor(metadata.rdev()) }))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_mountinfo() -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 << 10);
        File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| Error::internal("read /proc/self/mountinfo").because(error))
}
