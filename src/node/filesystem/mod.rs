//! File systems: what is on a device, and how it is made, checked, mounted and grown.
//!
//! Growing happens on the mounted file system: all of ours can, it takes moments, and unlike the offline way of ext4 it
//! needs no full check first. The offline way is there for kernels that refuse it.

pub mod btrfs;
pub mod ext;
pub mod probe;
pub mod superblock;
pub mod xfs;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::model::{Bytes, StringMap};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The time that making a file system may take.
pub const FORMAT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The time that checking one may take; a large ext4 after a crash of its node takes its time.
pub const CHECK_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// The time that growing one may take.
pub const GROW_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How much smaller than its device a file system may be and still fill it: what block groups and allocation groups
/// leave at the end. Volumes grow by gibibytes.
const SLACK: u64 = 32 << 20;

/// The end of the volume-context key with options for mkfs, such as `cinder.fuxi.openstack.org/mkfs-options`.
const MKFS_OPTIONS: &str = "mkfs-options";

/// What came of growing a mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Growth {
    /// It has the size of its device.
    Done,
    /// This kernel, or this container, does not do it while mounted; why.
    NotMounted(String),
}

/// One kind of file system.
#[async_trait]
pub trait Filesystem: fmt::Debug + Send + Sync {
    /// Its name, as mount(2) and blkid have it.
    fn name(&self) -> &'static str;

    /// Makes one on a device that was proven blank. `again`: over the remains of an earlier attempt.
    ///
    /// # Errors
    /// `WrongState`: its program is missing, and nothing was written. `Internal`: the program's words.
    async fn format(&self, tools: &Tools<'_>, device: &Path, options: &[String], again: bool) -> Result<()>;

    /// Makes sure that it can be mounted, repairing what can be repaired without a loss.
    ///
    /// # Errors
    /// `WrongState`: it is damaged beyond that.
    async fn check(&self, tools: &Tools<'_>, device: &Path) -> Result<()>;

    /// Options that it is always mounted with.
    fn mount_options(&self) -> &'static [&'static str] {
        &[]
    }

    /// How large it says it is, unmounted.
    ///
    /// # Errors
    /// `Internal`: the device cannot be read, or does not hold it.
    async fn size(&self, tools: &Tools<'_>, device: &Path) -> Result<Bytes>;

    /// How large it is while mounted.
    ///
    /// # Errors
    /// `Internal`: it does not say.
    async fn mounted_size(&self, tools: &Tools<'_>, device: &Path, mount_point: &Path) -> Result<Bytes>;

    /// Grows it to the size of its device, mounted and in use.
    ///
    /// # Errors
    /// `Internal`: the program's words.
    async fn grow(&self, tools: &Tools<'_>, device: &Path, mount_point: &Path) -> Result<Growth>;

    /// Grows it to the size of its device while it is not mounted.
    ///
    /// # Errors
    /// `Unsupported`: it cannot. `WrongState`: it is damaged. `Internal`: the program's words.
    async fn grow_unmounted(&self, _tools: &Tools<'_>, _device: &Path) -> Result<()> {
        Err(Error::unsupported(format!("{} grows only while it is mounted", self.name())))
    }

    /// Gives a copy an identity of its own, where a kernel mounts no two with the same one. False if it needs none.
    ///
    /// # Errors
    /// `WrongState`: not without a risk for what it holds. `Internal`: the program's words.
    async fn make_distinct(&self, _tools: &Tools<'_>, _device: &Path) -> Result<bool> {
        Ok(false)
    }
}

/// What a file system's programs are run with.
#[derive(Debug)]
pub struct Tools<'a> {
    /// Runs them.
    pub exec: &'a dyn Exec,
    /// For whom.
    pub call: &'a Call,
}

/// The kinds that this driver knows, by name.
#[derive(Debug, Clone)]
pub struct Filesystems {
    by_name: BTreeMap<&'static str, Arc<dyn Filesystem>>,
}

impl Default for Filesystems {
    fn default() -> Self {
        Self::new([
            Arc::new(ext::Ext::EXT4) as Arc<dyn Filesystem>,
            Arc::new(ext::Ext::EXT3),
            Arc::new(xfs::Xfs),
            Arc::new(btrfs::Btrfs),
        ])
    }
}

impl Filesystems {
    /// These kinds.
    pub fn new(kinds: impl IntoIterator<Item = Arc<dyn Filesystem>>) -> Self {
        Self { by_name: kinds.into_iter().map(|kind| (kind.name(), kind)).collect() }
    }

    /// The kind of that name.
    ///
    /// # Errors
    /// `InvalidArgument`, naming those that there are.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Filesystem>> {
        self.by_name.get(name).cloned().ok_or_else(|| {
            Error::invalid(format!("fs_type {name:?} is not one of {}", self.names().collect::<Vec<_>>().join(", ")))
        })
    }

    /// The names of all kinds.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }
}

/// Whether a file system of one size fills a device of another.
#[must_use]
pub fn fills(filesystem: Bytes, device: Bytes) -> bool {
    device.get().saturating_sub(filesystem.get()) < SLACK
}

/// The options for mkfs that a class gave a volume.
///
/// # Errors
/// `InvalidArgument`: something that is not an option, and could be taken for a device.
pub fn mkfs_options(context: &StringMap) -> Result<Vec<String>> {
    let is_key =
        |key: &str| key == MKFS_OPTIONS || key.strip_suffix(MKFS_OPTIONS).is_some_and(|key| key.ends_with('/'));
    let Some((key, text)) = context.iter().find(|(key, _)| is_key(key)) else { return Ok(Vec::new()) };
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let mut after_option = false;
    for word in &words {
        let is_option = word.starts_with('-');
        if !(is_option || after_option) {
            return Err(Error::invalid(format!("{key} {text:?}: {word:?} is neither an option nor an option's value")));
        }
        // `-m 1` has a value in the next word, `-m1` and `--nodiscard` have none.
        after_option = is_option && word.len() == 2;
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::{Filesystems, fills, mkfs_options};
    use crate::error::Kind;
    use crate::model::{Bytes, StringMap};

    #[test]
    fn an_unknown_file_system_is_refused_with_the_known_ones() {
        let error = Filesystems::default().get("ntfs").unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains("btrfs, ext3, ext4, xfs"), "{error}");
    }

    #[test]
    fn a_file_system_fills_a_device_that_is_hardly_larger() {
        let gib = Bytes::new(Bytes::GIB);
        assert!(fills(gib, gib) && fills(Bytes::new(Bytes::GIB - 4096), gib) && fills(gib, Bytes::ZERO));
        assert!(!fills(gib, Bytes::new(2 * Bytes::GIB)));
    }

    #[test]
    fn mkfs_options_are_options_only() {
        let options = |text: &str| {
            mkfs_options(&StringMap::from([("cinder.fuxi.openstack.org/mkfs-options".to_owned(), text.to_owned())]))
        };
        assert_eq!(options("-m 1  -E nodiscard -O ^has_journal").unwrap().len(), 6);
        assert_eq!(options("--nodiscard -b4096").unwrap().len(), 2);
        assert_eq!(mkfs_options(&StringMap::new()).unwrap(), Vec::<String>::new());
        for wrong in ["/dev/sda", "-m 1 /dev/sda", "-b4096 7"] {
            assert_eq!(options(wrong).unwrap_err().kind(), Kind::InvalidArgument, "{wrong}");
        }
    }
}
