//! Mounting: the [`Mounter`], its mount table, and the real one.
//!
//! The mount table is the truth about what is mounted. Mounts are matched by mount point and block device number, never
//! by a device's name alone: names are reused.

pub mod memory;
pub mod options;
pub mod place;
pub mod system;
pub mod table;

use crate::call::Call;
use crate::error::Result;
use crate::node::Stats;
use crate::node::device::DeviceNumber;
use async_trait::async_trait;
use options::MountOptions;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::path::{Path, PathBuf};
use sys_mount::MountFlags;
use table::MountTable;

/// A file system to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device node, or what the file system takes for one.
    pub source: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Its type.
    pub fstype: String,
    /// How.
    pub options: MountOptions,
    /// One more option, that nobody may see.
    pub secret: Option<SecretOption>,
}

/// An option that nobody may see: it goes to the kernel and nowhere else.
#[derive(Debug, Clone)]
pub struct SecretOption {
    name: &'static str,
    value: SecretString,
}

impl SecretOption {
    /// `name=value`.
    #[must_use]
    pub fn new(name: &'static str, value: SecretString) -> Self {
        Self { name, value }
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> &SecretString {
        &self.value
    }

    /// Adds it to what the file system reads.
    fn onto(&self, data: &str) -> String {
        let comma = if data.is_empty() { "" } else { "," };
        format!("{data}{comma}{}={}", self.name, self.value.expose_secret())
    }
}

impl PartialEq for SecretOption {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value.expose_secret() == other.value.expose_secret()
    }
}

impl Eq for SecretOption {}

/// How a mount is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    Unused,
    /// From the tree now, and from use when the last user is gone: for file systems whose device is gone already.
    Detach,
}

/// How the root of a mounted file system answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It can be read.
    Alive,
    /// It gives I/O errors: the file system is shut down, or what is below it is gone.
    Dead,
    /// It does not answer at all.
    Hung,
}

/// What mounts and unmounts: the kernel, or a memory of it in tests.
///
/// What changes something is not cut off when a call ends (its outcome would be unknown), but has time limits of its own.
#[async_trait]
pub trait Mounter: fmt::Debug + Send + Sync {
    /// Everything that is mounted.
    ///
    /// # Errors
    /// `Internal`: the table cannot be read.
    async fn table(&self, call: &Call) -> Result<MountTable>;

    /// Mounts a file system.
    ///
    /// # Errors
    /// With the system's error as the cause. `Unavailable`: it hangs.
    async fn mount(&self, call: &Call, mount: &Mount) -> Result<()>;

    /// Shows a directory or file in a second place.
    ///
    /// # Errors
    /// With the system's error as the cause. `Unavailable`: it hangs.
    async fn bind(&self, call: &Call, source: &Path, target: &Path) -> Result<()>;

    /// Sets the flags of one mount, not of the file system.
    ///
    /// # Errors
    /// With the system's error as the cause. `Unavailable`: it hangs.
    async fn set_flags(&self, call: &Call, target: &Path, flags: MountFlags) -> Result<()>;

    /// Takes the topmost mount from a path.
    ///
    /// # Errors
    /// `Busy`: it is in use. `Unavailable`: it hangs. Others with the system's error as the cause.
    async fn unmount(&self, call: &Call, target: &Path, how: Unmount) -> Result<()>;

    /// The statistics of the file system at a path.
    ///
    /// # Errors
    /// `Unavailable`: it hangs. Others with the system's error as the cause.
    async fn statistics(&self, call: &Call, path: &Path) -> Result<Stats>;

    /// Whether the file system at a path answers.
    ///
    /// # Errors
    /// The path is not there.
    async fn pulse(&self, call: &Call, path: &Path) -> Result<Pulse>;

    /// Which block device the node at a path is, through whatever is mounted there; none if it is none.
    ///
    /// # Errors
    /// `Unavailable`: it hangs. Others with the system's error as the cause.
    async fn block_device(&self, call: &Call, path: &Path) -> Result<Option<DeviceNumber>>;
}
