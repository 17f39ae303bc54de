//! The mount table: what the kernel says in `/proc/self/mountinfo`.

use crate::error::{Error, Result};
use crate::node::device::DeviceNumber;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's id.
    pub id: u64,
    /// The number of the file system: the block device's for most, an anonymous one for btrfs and network ones.
    pub device: DeviceNumber,
    /// The block device below, where there is one: what mounts are matched by.
    pub block: Option<DeviceNumber>,
    /// Which directory or file of the file system is shown.
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// Options of this mount: `ro`, `nosuid`.
    pub options: Vec<String>,
    /// The type of the file system.
    pub fstype: String,
    /// What was mounted, as the kernel calls it.
    pub source: PathBuf,
    /// Options of the file system itself: `ro` here means that nobody can write.
    pub super_options: Vec<String>,
}

impl MountEntry {
    /// Whether this mount was made to take no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// Whether the file system as a whole takes no writes: mounted so, or because the kernel gave up on it.
    #[must_use]
    pub fn is_filesystem_read_only(&self) -> bool {
        // ext4 of Linux 6.15 and later stays `rw` and says `emergency_ro`.
        self.super_options.iter().any(|option| option == "ro" || option == "emergency_ro")
    }
}

/// All mounts, in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountTable {
    entries: Vec<MountEntry>,
}

impl MountTable {
    /// A table of these mounts.
    #[must_use]
    pub fn new(entries: Vec<MountEntry>) -> Self {
        Self { entries }
    }

    /// Reads the text of a mountinfo file.
    ///
    /// # Errors
    /// `Internal`: a line is not what proc(5) describes. A table that is half understood would hide mounts.
    pub fn parse(text: &[u8]) -> Result<Self> {
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                parse_line(line).ok_or_else(|| {
                    Error::internal(format!("mountinfo: cannot read the line {:?}", String::from_utf8_lossy(line)))
                })
            })
            .collect::<Result<_>>()
            .map(|entries| Self { entries })
    }

    /// All mounts.
    #[must_use]
    pub fn entries(&self) -> &[MountEntry] {
        &self.entries
    }

    /// All mounts, to be completed.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut MountEntry> {
        self.entries.iter_mut()
    }

    /// The mounts on exactly this path, the visible one last.
    pub fn at<'a>(&'a self, path: &'a Path) -> impl DoubleEndedIterator<Item = &'a MountEntry> {
        self.entries.iter().filter(move |entry| entry.mount_point == path)
    }

    /// The visible mount on exactly this path.
    #[must_use]
    pub fn top(&self, path: &Path) -> Option<&MountEntry> {
        self.entries.iter().rev().find(|entry| entry.mount_point == path)
    }

    /// Where file systems on this block device are mounted.
    pub fn of(&self, block: DeviceNumber) -> impl Iterator<Item = &MountEntry> {
        self.entries.iter().filter(move |entry| entry.block == Some(block))
    }
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; see proc(5).
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let id = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    let _parent: u64 = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    let device: DeviceNumber = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    let root = path(next()?);
    let mount_point = path(next()?);
    let options = list(next()?);
    // Any number of optional fields, ended by a lone dash.
    while next()? != b"-" {}
    let fstype = String::from_utf8_lossy(&unescape(next()?)).into_owned();
    let source = path(next()?);
    // Some file systems have no options at all, and then no field either.
    let super_options = list(next().unwrap_or_default());
    let block = (device.major != 0).then_some(device);
    Some(MountEntry { id, device, block, root, mount_point, options, fstype, source, super_options })
}

fn list(field: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(&unescape(field)).split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's octal escapes (`\040` for a blank). A backslash that starts none stays what it is.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{MountTable, unescape};
    use crate::node::device::DeviceNumber;
    use proptest::prelude::{any, prop, proptest};
    use std::fmt::Write as _;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    fn escape(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => write!(text, "\\{byte:03o}").unwrap(),
                // The kernel writes other bytes as they are; in this test all go escaped, to have a String.
                byte if byte.is_ascii_graphic() => text.push(char::from(*byte)),
                byte => write!(text, "\\{byte:03o}").unwrap(),
            }
            text
        })
    }

    #[test]
    fn a_table_is_read_with_optional_fields_and_escapes() {
        let text = b"22 27 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
            36 27 252:16 / /var/lib/with\\040blank ro,noatime master:1 propagate_from:2 - ext4 /dev/vdb rw,errors=continue\n\
            40 36 252:32 /sub//deleted /a rw - xfs /dev/vdc\n";
        let table = MountTable::parse(text).unwrap();
        let entry = table.top(Path::new("/var/lib/with blank")).unwrap();
        assert_eq!(entry.block, Some(DeviceNumber { major: 252, minor: 16 }));
        assert!(entry.is_read_only() && !entry.is_filesystem_read_only());
        assert_eq!(entry.super_options, ["rw", "errors=continue"]);
        assert_eq!(table.entries()[0].block, None);
        assert_eq!(table.entries()[2].super_options, Vec::<String>::new());
    }

    #[test]
    fn stacked_mounts_are_all_seen_and_the_last_is_the_visible_one() {
        let text = b"1 0 8:1 / /m rw - ext4 /dev/sda1 rw\n2 1 8:2 / /m rw - ext4 /dev/sda2 rw\n";
        let table = MountTable::parse(text).unwrap();
        assert_eq!(table.at(Path::new("/m")).count(), 2);
        assert_eq!(table.top(Path::new("/m")).unwrap().id, 2);
        assert_eq!(table.of(DeviceNumber { major: 8, minor: 1 }).count(), 1);
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        for line in ["x", "1 2 3", "1 0 8:1 / /m rw ext4 /dev/sda1 rw", "1 0 81 / /m rw - ext4 /dev/sda1 rw"] {
            assert!(MountTable::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert_eq!(MountTable::parse(b"").unwrap().entries(), []);
    }

    #[test]
    fn the_table_of_this_machine_is_understood() {
        let text = std::fs::read("/proc/self/mountinfo").unwrap();
        assert!(MountTable::parse(&text).unwrap().top(Path::new("/")).is_some());
    }

    proptest! {
        #[test]
        fn any_path_survives_the_kernels_escapes(bytes in prop::collection::vec(1_u8.., 1..40)) {
            assert_eq!(unescape(escape(&bytes).as_bytes()), bytes);
            let line = format!("1 0 8:1 / /{} rw - ext4 /dev/sda1 rw", escape(&bytes));
            let table = MountTable::parse(line.as_bytes()).unwrap();
            let mut point = b"/".to_vec();
            point.extend(&bytes);
            let point = PathBuf::from(std::ffi::OsString::from_vec(point));
            assert_eq!(table.entries()[0].mount_point.as_os_str().as_bytes(), point.as_os_str().as_bytes());
        }

        #[test]
        fn no_text_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = MountTable::parse(&bytes);
        }
    }
}
