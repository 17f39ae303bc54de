//! Where a SCSI disk sits: host, channel, target, LUN; and what sits there.

use crate::node::connector::kernel::names_in;
use crate::node::device::{Host, attribute};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// The type of a SCSI device that is a disk.
const DISK: &str = "0";

/// A logical unit number as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::node::connector) struct Lun(u64);

/// The bit of the flat space addressing method.
const FLAT: u64 = 0x4000;

impl Lun {
    /// As the kernel shows it, encoded.
    pub(in crate::node::connector) fn shown(number: u64) -> Self {
        Self(number)
    }

    /// As the back end wants it encoded.
    pub(in crate::node::connector) fn encoded(self, mode: AddressingMode) -> Self {
        match mode {
            AddressingMode::Sam2 if self.0 >= 256 => Self(self.0 | FLAT),
            AddressingMode::Sam3Flat => Self(self.0 | FLAT),
            AddressingMode::Sam | AddressingMode::Sam2 => self,
        }
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Lun {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(lun) if lun < FLAT && !text.starts_with('+') => Ok(Self(lun)),
            _ => Err(format!("is {text:?}, which is no LUN below {FLAT}")),
        }
    }
}

/// How LUNs are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node::connector) enum AddressingMode {
    Sam,
    Sam2,
    Sam3Flat,
}

impl FromStr for AddressingMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "sam" | "transparent" => Ok(Self::Sam),
            "sam2" => Ok(Self::Sam2),
            "sam3-flat" => Ok(Self::Sam3Flat),
            _ => Err(format!("is {text:?}, and not SAM, SAM2 or SAM3-flat")),
        }
    }
}

/// Where a disk sits, or should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::node::connector) struct Address {
    pub(in crate::node::connector) host: u32,
    pub(in crate::node::connector) channel: u32,
    pub(in crate::node::connector) target: u32,
    pub(in crate::node::connector) lun: Lun,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.host, self.channel, self.target, self.lun)
    }
}

impl Address {
    /// The directory of what sits there.
    fn directory(self, host: &Host) -> PathBuf {
        host.path("/sys/class/scsi_device").join(self.to_string()).join("device")
    }
}

/// One way to a volume: a disk at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node::connector) struct PathDisk {
    pub(in crate::node::connector) address: Address,
    /// Its name, such as `sda`; none while the kernel has not made the disk of it.
    pub(in crate::node::connector) name: Option<String>,
    pub(in crate::node::connector) directory: PathBuf,
    /// What the storage says that it is.
    pub(in crate::node::connector) wwid: Option<String>,
}

/// What sits at an address, if anything does.
pub(in crate::node::connector) fn at(host: &Host, address: Address) -> io::Result<Option<PathDisk>> {
    let directory = address.directory(host);
    if !directory.exists() {
        return Ok(None);
    }
    let name = names_in(&directory.join("block"))?.into_iter().next();
    let wwid = attribute_or_refusal(&directory.join("wwid"))?;
    Ok(Some(PathDisk { address, name, directory, wwid }))
}

/// An attribute; a device without an identity refuses to show it.
fn attribute_or_refusal(path: &std::path::Path) -> io::Result<Option<String>> {
    match attribute(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput) => Ok(None),
        other => Ok(other?.filter(|text| !text.is_empty())),
    }
}

/// How many disks sit at any LUN of a target.
pub(in crate::node::connector) fn disks_of_target(host: &Host, of: Address) -> io::Result<usize> {
    let start = format!("{}:{}:{}:", of.host, of.channel, of.target);
    let directory = host.path("/sys/class/scsi_device");
    let mut count = 0;
    for name in names_in(&directory)?.iter().filter(|name| name.starts_with(&start)) {
        count += usize::from(attribute(&directory.join(name).join("device/type"))?.as_deref() == Some(DISK));
    }
    Ok(count)
}
