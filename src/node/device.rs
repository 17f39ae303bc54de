//! A block device of this machine, and where the kernel tells about it.

use crate::error::{Error, Result};
use crate::model::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The unit of `/sys/class/block/*/size`, whatever the device's own sectors are.
const SYSFS_SECTOR: u64 = 512;

/// `major:minor`: what a block device is to the kernel, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceNumber {
    /// The driver.
    pub major: u64,
    /// The device.
    pub minor: u64,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.trim()
            .split_once(':')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }))
            .ok_or_else(|| Error::internal(format!("{text:?} is not a device number such as 8:16")))
    }
}

impl TryFrom<String> for DeviceNumber {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceNumber> for String {
    fn from(number: DeviceNumber) -> Self {
        number.to_string()
    }
}

/// A block device as the kernel showed it at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in sysfs, such as `vdb`.
    pub name: String,
    /// Its node, such as `/dev/vdb`.
    pub path: PathBuf,
    /// Its number.
    pub number: DeviceNumber,
    /// Its size.
    pub size: Bytes,
    /// The kernel's count of disks: another disk under the same name has another number (Linux 5.15 and later).
    #[serde(default)]
    pub sequence: Option<u64>,
    /// Whether the kernel refuses writes.
    #[serde(default)]
    pub read_only: bool,
    /// The identity that the storage gave it and that stays with it wherever it shows up: the WWID of a SCSI disk or of
    /// its map, the UUID or NGUID of an NVMe namespace. A connector that knows it writes it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwid: Option<String>,
}

impl Device {
    /// Whether both are the same disk, whatever its size became. The kernel counts disks anew at each start.
    #[must_use]
    pub fn is_same_disk(&self, other: &Self) -> bool {
        self.number == other.number && self.name == other.name && self.sequence == other.sequence
    }
}

/// Where the kernel's files are; elsewhere in tests and in containers that see the host below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Host {
    /// A machine whose `dev`, `sys` and `run` are below this directory.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path of the machine.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// What the kernel calls the time since the machine was started; none if it does not say.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn boot(&self) -> io::Result<Option<String>> {
        Ok(attribute(&self.path("/proc/sys/kernel/random/boot_id"))?.filter(|id| !id.is_empty()))
    }

    /// A block device's directory in sysfs.
    #[must_use]
    pub fn sysfs(&self, name: &str) -> PathBuf {
        self.path("/sys/class/block").join(name)
    }

    /// The names of those disks (block devices that are no partitions) whose names are of interest.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn disks(&self, is_of_interest: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path("/sys/class/block"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if is_of_interest(&name) && !self.sysfs(&name).join("partition").exists() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What the kernel says about a block device, if it has one of that name.
    ///
    /// # Errors
    /// sysfs cannot be read, or says something unheard of.
    pub fn device(&self, name: &str) -> io::Result<Option<Device>> {
        let directory = self.sysfs(name);
        let Some(number) = attribute(&directory.join("dev"))? else { return Ok(None) };
        let Some(sectors) = attribute(&directory.join("size"))? else { return Ok(None) };
        let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} of {name}"));
        let sectors: u64 = sectors.parse().map_err(|_| strange("size"))?;
        Ok(Some(Device {
            name: name.to_owned(),
            // In sysfs, a `!` stands for the `/` of names such as `cciss/c0d0`.
            path: self.path("/dev").join(name.replace('!', "/")),
            number: number.parse().map_err(|_| strange("dev"))?,
            size: Bytes::new(sectors.checked_mul(SYSFS_SECTOR).ok_or_else(|| strange("size"))?),
            sequence: attribute(&directory.join("diskseq"))?.and_then(|text| text.parse().ok()),
            read_only: attribute(&directory.join("ro"))?.is_some_and(|text| text == "1"),
            wwid: None,
        }))
    }

    /// What the kernel says about the block device of that number, if there (still) is one.
    ///
    /// # Errors
    /// sysfs cannot be read, or says something unheard of.
    pub fn numbered(&self, number: DeviceNumber) -> io::Result<Option<Device>> {
        match std::fs::read_link(self.path("/sys/dev/block").join(number.to_string())) {
            Ok(target) => target.file_name().map_or(Ok(None), |name| self.device(&name.to_string_lossy())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The content of a sysfs file, without the line break; none if there is no such file or device (any more).
///
/// # Errors
/// It cannot be read for another reason.
pub fn attribute(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_matches(['\n', '\0', ' ']).to_owned())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error means that file or device are not there; a device that goes away while it is read gives ENODEV or ENXIO.
fn is_absent(error: &io::Error) -> bool {
    const ENXIO: i32 = nix::errno::Errno::ENXIO as i32;
    const ENODEV: i32 = nix::errno::Errno::ENODEV as i32;
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || matches!(error.raw_os_error(), Some(ENXIO | ENODEV))
}

/// A small tree of kernel files for tests: disks are sparse files.
#[cfg(test)]
pub(crate) mod fake {
    use super::{Device, Host};
    use std::fs;
    use std::path::Path;

    /// Adds (or changes) a disk of the fake machine.
    pub(crate) fn add_disk(root: &Path, name: &str, minor: u64, size: u64, serial: Option<&str>) -> Device {
        let host = Host::below(root);
        let sysfs = host.sysfs(name);
        fs::create_dir_all(&sysfs).unwrap();
        fs::write(sysfs.join("dev"), format!("252:{minor}\n")).unwrap();
        fs::write(sysfs.join("size"), format!("{}\n", size / 512)).unwrap();
        fs::write(sysfs.join("ro"), "0\n").unwrap();
        fs::write(sysfs.join("diskseq"), format!("{minor}\n")).unwrap();
        if let Some(serial) = serial {
            fs::write(sysfs.join("serial"), serial).unwrap();
        }
        fs::create_dir_all(host.path("/sys/dev/block")).unwrap();
        let number = host.path("/sys/dev/block").join(format!("252:{minor}"));
        drop(fs::remove_file(&number));
        std::os::unix::fs::symlink(format!("../../class/block/{name}"), number).unwrap();
        fs::create_dir_all(host.path("/dev/disk/by-id")).unwrap();
        let node =
            fs::OpenOptions::new().create(true).write(true).truncate(false).open(host.path("/dev").join(name)).unwrap();
        node.set_len(size).unwrap();
        host.device(name).unwrap().unwrap()
    }

    /// Takes a disk away.
    pub(crate) fn remove_disk(root: &Path, device: &Device) {
        let host = Host::below(root);
        fs::remove_dir_all(host.sysfs(&device.name)).unwrap();
        fs::remove_file(host.path("/sys/dev/block").join(device.number.to_string())).unwrap();
        fs::remove_file(&device.path).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceNumber, Host, fake};
    use crate::model::Bytes;

    #[test]
    fn a_device_is_read_from_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let device = fake::add_disk(root.path(), "vdb", 16, 1 << 20, None);
        assert_eq!(device.number, DeviceNumber { major: 252, minor: 16 });
        assert_eq!((device.size, device.sequence), (Bytes::new(1 << 20), Some(16)));
        assert_eq!(device.path, root.path().join("dev/vdb"));
        let host = Host::below(root.path());
        assert_eq!(host.device("vdz").unwrap(), None);
        assert_eq!(host.disks(|_| true).unwrap(), ["vdb"]);
        assert_eq!(host.numbered(device.number).unwrap(), Some(device.clone()));
        fake::remove_disk(root.path(), &device);
        assert_eq!(host.numbered(device.number).unwrap(), None);
    }

    #[test]
    fn nonsense_in_sysfs_is_an_error_not_a_device() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "vdb", 16, 1 << 20, None);
        let host = Host::below(root.path());
        std::fs::write(host.sysfs("vdb").join("size"), "many").unwrap();
        assert!(host.device("vdb").is_err());
        std::fs::write(host.sysfs("vdb").join("size"), u64::MAX.to_string()).unwrap();
        assert!(host.device("vdb").is_err());
    }
}
