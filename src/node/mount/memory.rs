//! A mount table in memory, for tests: mounts nothing, and remembers what would be mounted.

use super::table::{MountEntry, MountTable};
use super::{Mount, Mounter, Pulse, Unmount};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::node::device::DeviceNumber;
use crate::node::{Stats, Usage};
use async_trait::async_trait;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sys_mount::MountFlags;

#[derive(Debug, Default)]
struct State {
    entries: Vec<MountEntry>,
    devices: BTreeMap<PathBuf, DeviceNumber>,
    pulses: BTreeMap<PathBuf, Pulse>,
    busy: BTreeSet<PathBuf>,
    refused: BTreeSet<PathBuf>,
    last_id: u64,
}

/// Mounts in memory. Clones share their table.
#[derive(Debug, Clone, Default)]
pub struct MemoryMounter {
    state: Arc<Mutex<State>>,
}

impl MemoryMounter {
    /// Nothing mounted, no devices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a path a block device's node; or none any more.
    pub fn set_device(&self, path: &Path, number: Option<DeviceNumber>) {
        match number {
            Some(number) => self.lock().devices.insert(path.to_owned(), number),
            None => self.lock().devices.remove(path),
        };
    }

    /// How the file system at a mount point answers from now on.
    pub fn set_pulse(&self, mount_point: &Path, pulse: Pulse) {
        self.lock().pulses.insert(mount_point.to_owned(), pulse);
    }

    /// Whether somebody uses the file system at a mount point.
    pub fn set_busy(&self, mount_point: &Path, busy: bool) {
        if busy {
            self.lock().busy.insert(mount_point.to_owned())
        } else {
            self.lock().busy.remove(mount_point)
        };
    }

    /// Whether mounts and binds on a path fail with an I/O error.
    pub fn set_refused(&self, target: &Path, refused: bool) {
        if refused {
            self.lock().refused.insert(target.to_owned())
        } else {
            self.lock().refused.remove(target)
        };
    }

    /// Makes the whole file system at a mount point read-only, as the kernel does after errors.
    pub fn fail_to_read_only(&self, mount_point: &Path) {
        for entry in self.lock().entries.iter_mut().filter(|entry| entry.mount_point == mount_point) {
            entry.super_options = vec!["ro".to_owned()];
        }
    }

    /// Nothing is mounted any more: the machine was started anew.
    pub fn forget(&self) {
        self.lock().entries.clear();
    }

    /// Everything that is mounted, in order.
    #[must_use]
    pub fn mounted(&self) -> Vec<MountEntry> {
        self.lock().entries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn system(doing: String, errno: Errno) -> Error {
    Error::internal(doing).because(io::Error::from(errno))
}

fn words(flags: MountFlags) -> Vec<String> {
    let named = [(MountFlags::NOSUID, "nosuid"), (MountFlags::NODEV, "nodev"), (MountFlags::NOEXEC, "noexec")];
    let access = if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" };
    let others = named.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, word)| (*word).to_owned());
    std::iter::once(access.to_owned()).chain(others).collect()
}

impl State {
    fn add(&mut self, target: &Path, entry: MountEntry) {
        self.last_id += 1;
        self.entries.push(MountEntry { id: self.last_id, mount_point: target.to_owned(), ..entry });
    }

    fn top(&self, path: &Path) -> Option<&MountEntry> {
        self.entries.iter().rev().find(|entry| entry.mount_point == path)
    }

    fn ready(&self, doing: &str, target: &Path) -> Result<()> {
        if self.refused.contains(target) {
            return Err(system(doing.to_owned(), Errno::EIO));
        }
        if target.exists() { Ok(()) } else { Err(system(doing.to_owned(), Errno::ENOENT)) }
    }
}

#[async_trait]
impl Mounter for MemoryMounter {
    async fn table(&self, _call: &Call) -> Result<MountTable> {
        Ok(MountTable::new(self.mounted()))
    }

    async fn mount(&self, call: &Call, mount: &Mount) -> Result<()> {
        let doing = format!("mount {} on {}", mount.source.display(), mount.target.display());
        call.check(&doing)?;
        let mut state = self.lock();
        state.ready(&doing, &mount.target)?;
        let block = state.devices.get(&mount.source).copied();
        let options = words(mount.options.flags);
        let entry = MountEntry {
            id: 0,
            device: block.unwrap_or(DeviceNumber { major: 0, minor: 99 }),
            block,
            root: PathBuf::from("/"),
            mount_point: PathBuf::new(),
            super_options: options.iter().take(1).cloned().collect(),
            options,
            fstype: mount.fstype.clone(),
            source: mount.source.clone(),
        };
        state.add(&mount.target, entry);
        Ok(())
    }

    async fn bind(&self, call: &Call, source: &Path, target: &Path) -> Result<()> {
        let doing = format!("bind {} to {}", source.display(), target.display());
        call.check(&doing)?;
        let mut state = self.lock();
        state.ready(&doing, target)?;
        let entry = match state.top(source) {
            Some(entry) => entry.clone(),
            None if source.exists() => MountEntry {
                id: 0,
                device: DeviceNumber { major: 0, minor: 6 },
                block: None,
                root: source.to_owned(),
                mount_point: PathBuf::new(),
                options: vec!["rw".to_owned()],
                fstype: "devtmpfs".to_owned(),
                source: PathBuf::from("udev"),
                super_options: vec!["rw".to_owned()],
            },
            None => return Err(system(doing, Errno::ENOENT)),
        };
        state.add(target, entry);
        Ok(())
    }

    async fn set_flags(&self, call: &Call, target: &Path, flags: MountFlags) -> Result<()> {
        let doing = format!("set mount flags of {}", target.display());
        call.check(&doing)?;
        match self.lock().entries.iter_mut().rev().find(|entry| entry.mount_point == target) {
            Some(entry) => entry.options = words(flags),
            None => return Err(system(doing, Errno::EINVAL)),
        }
        Ok(())
    }

    async fn unmount(&self, call: &Call, target: &Path, how: Unmount) -> Result<()> {
        let doing = format!("unmount {}", target.display());
        call.check(&doing)?;
        let mut state = self.lock();
        if how == Unmount::Unused && state.busy.contains(target) {
            return Err(system(doing, Errno::EBUSY).as_kind(Kind::Busy));
        }
        match state.entries.iter().rposition(|entry| entry.mount_point == target) {
            Some(place) => drop(state.entries.remove(place)),
            None => return Err(system(doing, Errno::EINVAL)),
        }
        Ok(())
    }

    async fn statistics(&self, _call: &Call, path: &Path) -> Result<Stats> {
        match self.lock().top(path) {
            Some(_) => Ok(Stats { bytes: Usage { total: 100, available: 60, used: 40 }, inodes: None }),
            None => Err(system(format!("read the statistics of {}", path.display()), Errno::ENOENT)),
        }
    }

    async fn pulse(&self, _call: &Call, path: &Path) -> Result<Pulse> {
        Ok(self.lock().pulses.get(path).copied().unwrap_or(Pulse::Alive))
    }

    async fn block_device(&self, _call: &Call, path: &Path) -> Result<Option<DeviceNumber>> {
        let state = self.lock();
        let node = state.top(path).map_or(path, |entry| &entry.root);
        Ok(state.devices.get(node).copied())
    }
}
