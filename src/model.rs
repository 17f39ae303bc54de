//! The nouns that all layers share: identifiers, sizes, access, topology, connections. No I/O here.

use crate::error::{Error, Kind, Result};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

pub use jiff::Timestamp;

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One gibibyte, the unit of Cinder and Manila.
    pub const GIB: u64 = 1 << 30;

    /// A number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A number of gibibytes, unless that is more than 2^64 bytes.
    #[must_use]
    pub fn from_gib(gib: u64) -> Option<Self> {
        gib.checked_mul(Self::GIB).map(Self)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The smallest number of gibibytes that holds this size.
    #[must_use]
    pub const fn gib_ceil(self) -> u64 {
        self.0.div_ceil(Self::GIB)
    }

    /// The largest number of gibibytes that this size holds.
    #[must_use]
    pub const fn gib_floor(self) -> u64 {
        self.0 / Self::GIB
    }

    /// From a protobuf `int64`.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for a negative number, naming the field.
    pub fn from_wire(field: &str, bytes: i64) -> Result<Self> {
        u64::try_from(bytes)
            .map(Self)
            .map_err(|_| Error::invalid(format!("{field} is {bytes}: a size cannot be negative")))
    }

    /// As a protobuf `int64`; sizes beyond 8 EiB become the largest one.
    #[must_use]
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// `3 GiB` where that is exact, else the number of bytes.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0 && self.0.is_multiple_of(Self::GIB) {
            write!(f, "{} GiB", self.0 / Self::GIB)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

/// The size that was asked for: at least, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeRange {
    /// At least this much; zero for no wish.
    pub required: Bytes,
    /// At most this much; none for no bound.
    pub limit: Option<Bytes>,
}

impl SizeRange {
    /// Checks the bounds against each other.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] when the limit is below the required size.
    pub fn new(required: Bytes, limit: Option<Bytes>) -> Result<Self> {
        match limit {
            Some(limit) if limit < required => Err(Error::invalid(format!(
                "capacity_range: limit_bytes ({limit}) is less than required_bytes ({required})"
            ))),
            _ => Ok(Self { required, limit }),
        }
    }

    /// The size in whole gibibytes that serves the request: at least `at_least` (a source's size, or a default), rounded up.
    ///
    /// # Errors
    /// [`Kind::OutOfRange`] when rounding up, or the source, exceeds the limit.
    pub fn whole_gib(&self, at_least: u64) -> Result<u64> {
        let gib = self.required.gib_ceil().max(at_least).max(1);
        match self.limit {
            Some(limit) if gib > limit.gib_floor() => Err(Error::new(
                Kind::OutOfRange,
                format!(
                    "capacity_range: {gib} GiB would be needed (sizes are whole GiB), which is over limit_bytes ({limit})"
                ),
            )),
            _ => Ok(gib),
        }
    }

    /// Whether an existing size serves the request.
    #[must_use]
    pub fn allows(&self, size: Bytes) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }
}

/// The longest identifier that is taken from an orchestrator, in bytes. The specification promises 128 for strings in
/// general and 256 for node ids.
const LONGEST_ID: usize = 256;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                if text.is_empty() {
                    return Err(Error::invalid(concat!($field, " is missing")));
                }
                if text.len() > LONGEST_ID {
                    return Err(Error::invalid(format!(concat!($field, " has {} bytes, more than {}"), text.len(), LONGEST_ID)));
                }
                if text.chars().any(|c| c.is_control()) {
                    return Err(Error::invalid(format!(concat!($field, " {:?} has control characters"), text)));
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// A volume as the orchestrator knows it. Opaque here; a provider gives it its meaning.
    VolumeId,
    "volume_id"
);
identifier!(
    /// A snapshot (or backup) as the orchestrator knows it. Opaque here; a provider gives it its meaning.
    SnapshotId,
    "snapshot_id"
);
identifier!(
    /// A node as the orchestrator knows it: a Nova server's UUID, or packed connector facts.
    NodeId,
    "node_id"
);

/// Who may use a volume at once, and how (CSI `VolumeCapability.AccessMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessMode {
    /// One node, reading and writing.
    SingleNodeWriter,
    /// One node, one workload on it, reading and writing.
    SingleNodeSingleWriter,
    /// One node, several workloads on it, reading and writing.
    SingleNodeMultiWriter,
    /// One node, reading.
    SingleNodeReaderOnly,
    /// Many nodes, reading.
    MultiNodeReaderOnly,
    /// Many nodes, one of them writing.
    MultiNodeSingleWriter,
    /// Many nodes, all writing.
    MultiNodeMultiWriter,
}

impl AccessMode {
    /// Whether the volume may be used on more than one node.
    #[must_use]
    pub fn is_multi_node(self) -> bool {
        matches!(self, Self::MultiNodeReaderOnly | Self::MultiNodeSingleWriter | Self::MultiNodeMultiWriter)
    }

    /// Whether nobody writes.
    #[must_use]
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }
}

/// As what a volume reaches the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessKind {
    /// A raw block device.
    Block,
    /// A mounted file system.
    Mount {
        /// The file system; none for the driver's default.
        fstype: Option<String>,
        /// Options for mount(8).
        options: Vec<String>,
        /// The group that should own the files (`VOLUME_MOUNT_GROUP`).
        group: Option<String>,
    },
}

/// One way in which a volume is to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Who uses it.
    pub mode: AccessMode,
    /// As what.
    pub kind: AccessKind,
}

/// One place: segments such as `topology.cinder.fuxi.openstack.org/zone = nova`.
pub type Topology = BTreeMap<String, String>;

/// The driver name of manila-csi, which puts its protocol before it (`nfs.manila.csi.openstack.org`).
pub const MANILA_CSI: &str = "manila.csi.openstack.org";

/// What stands before a driver's own keys, in topologies, contexts and metadata: its name. manila-csi's keys, which a
/// driver of its name takes over, are the same for all its protocols.
#[must_use]
pub fn key_prefix(driver: &str) -> &str {
    let is_manila_csi =
        driver.strip_suffix(MANILA_CSI).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    if is_manila_csi { MANILA_CSI } else { driver }
}

/// The topology key of a driver's zones.
#[must_use]
pub fn zone_key(driver: &str) -> String {
    format!("topology.{}/zone", key_prefix(driver))
}

/// Where a volume must be reachable from (CSI `TopologyRequirement`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopologyRequirement {
    /// At least one of these; empty for no requirement.
    pub requisite: Vec<Topology>,
    /// The best first.
    pub preferred: Vec<Topology>,
}

/// String to string, as in parameters, metadata and contexts.
pub type StringMap = BTreeMap<String, String>;

/// The secrets of a request; their values never show in `Debug`.
pub type Secrets = BTreeMap<String, SecretString>;

/// What a new volume is filled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentSource {
    /// A snapshot or a backup.
    Snapshot(SnapshotId),
    /// Another volume.
    Volume(VolumeId),
}

/// What the orchestrator wants a volume to be.
#[derive(Debug, Clone)]
pub struct VolumeSpec {
    /// The name: the same name is the same volume.
    pub name: String,
    /// How large.
    pub size: SizeRange,
    /// Filled with what.
    pub source: Option<ContentSource>,
    /// Every way in which it will be used.
    pub capabilities: Vec<Capability>,
    /// Parameters of the StorageClass.
    pub parameters: StringMap,
    /// Parameters of the VolumeAttributesClass.
    pub mutable_parameters: StringMap,
    /// From where it must be reachable.
    pub topology: Option<TopologyRequirement>,
    /// Secrets of the class.
    pub secrets: Secrets,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its handle.
    pub id: VolumeId,
    /// Its size.
    pub size: Bytes,
    /// What it was filled with, when it was made by this request.
    pub source: Option<ContentSource>,
    /// From where it is reachable; empty for everywhere.
    pub topology: Vec<Topology>,
    /// What node RPCs should be told (`volume_context`).
    pub context: StringMap,
}

/// A volume, where it is published, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatus {
    /// The volume.
    pub volume: Volume,
    /// The nodes it is published on.
    pub published: Vec<NodeId>,
    /// What is wrong with it; empty when nothing is.
    pub health: Vec<Health>,
}

/// Something that is wrong with a volume (CSI `VolumeHealthEntry`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How bad.
    pub severity: Severity,
    /// A CamelCase word for machines, such as `DeviceGone`.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// How bad a [`Health`] problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Usable, not well.
    Degraded,
    /// Not usable from here.
    Inaccessible,
    /// Data is lost.
    DataLoss,
}

/// What the orchestrator wants a snapshot to be.
#[derive(Debug, Clone)]
pub struct SnapshotSpec {
    /// The name: the same name is the same snapshot.
    pub name: String,
    /// Of which volume.
    pub source: VolumeId,
    /// Parameters of the VolumeSnapshotClass.
    pub parameters: StringMap,
    /// From where volumes made of it must be reachable.
    pub topology: Option<TopologyRequirement>,
    /// Secrets of the class.
    pub secrets: Secrets,
}

/// A snapshot or a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its handle.
    pub id: SnapshotId,
    /// Of which volume.
    pub source: VolumeId,
    /// The size that a volume made of it has at least.
    pub size: Bytes,
    /// When it was taken.
    pub created: Timestamp,
    /// Whether a volume can be made of it now.
    pub ready: bool,
    /// From where volumes made of it are reachable; empty for everywhere.
    pub topology: Vec<Topology>,
}

/// Which snapshots are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFilter {
    /// Only this one.
    pub id: Option<SnapshotId>,
    /// Only those of this volume.
    pub source: Option<VolumeId>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// At most so many; none for all.
    pub most: Option<NonZeroU32>,
    /// Where the page before ended.
    pub token: Option<String>,
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The token of the next page; none after the last.
    pub next: Option<String>,
}

/// A user of a Ceph cluster, as the operator names it to the controller: Cinder sends no key of it.
#[derive(Debug, Clone)]
pub struct CephClient {
    /// The user, without `client.`.
    pub user: String,
    /// The cluster's id; none for every cluster that has this user.
    pub fsid: Option<String>,
    /// The user's key; none if that is in the secret of the class.
    pub key: Option<SecretString>,
    /// Monitors instead of those that Cinder names.
    pub monitors: Vec<String>,
    /// The `ms_mode` of the kernel's client.
    pub ms_mode: Option<String>,
}

/// Connections of this kind are disks that a hypervisor attaches to the node's own virtual machine.
pub const KIND_NOVA: &str = "nova";

/// Connections of this kind are shares that are mounted by NFS.
pub const KIND_NFS: &str = "nfs";

/// Connections of this kind are shares that are mounted by CephFS.
pub const KIND_CEPHFS: &str = "cephfs";

/// How a node gets at a published volume: what the controller puts into the `publish_context`.
///
/// Unsealed data may be read by many, so it holds no secret. Secrets travel in `sealed`, encrypted to the node's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Which connector serves it: [`KIND_NOVA`], or Cinder's `driver_volume_type`, or a share protocol.
    pub kind: String,
    /// What that connector needs; an object.
    pub data: serde_json::Value,
    /// How large the volume is, where the controller knows it: the node proves it before use.
    pub size: Option<Bytes>,
    /// Whether it was published for reading only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Secrets for the connector, encrypted to the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The keys of a `publish_context`.
mod context_key {
    pub(super) const KIND: &str = "kind";
    pub(super) const DATA: &str = "data";
    pub(super) const SIZE: &str = "size";
    pub(super) const READ_ONLY: &str = "readOnly";
    pub(super) const SEALED: &str = "sealed";
}

/// The largest map of a CSI message, in bytes of keys and values.
const LARGEST_CONTEXT: usize = 4096;

impl Connection {
    /// As a `publish_context`.
    ///
    /// # Errors
    /// [`Kind::Internal`] when it does not fit into the 4 KiB of a CSI map: it is never cut.
    pub fn to_context(&self) -> Result<StringMap> {
        let mut context = StringMap::from([
            (context_key::KIND.to_owned(), self.kind.clone()),
            (context_key::DATA.to_owned(), self.data.to_string()),
        ]);
        if let Some(size) = self.size {
            context.insert(context_key::SIZE.to_owned(), size.get().to_string());
        }
        if self.read_only {
            context.insert(context_key::READ_ONLY.to_owned(), self.read_only.to_string());
        }
        if let Some(sealed) = &self.sealed {
            context.insert(context_key::SEALED.to_owned(), sealed.clone());
        }
        let bytes: usize = context.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > LARGEST_CONTEXT {
            return Err(Error::internal(format!(
                "the {} connection needs {bytes} bytes of publish_context, and CSI allows {LARGEST_CONTEXT}",
                self.kind
            )));
        }
        Ok(context)
    }

    /// From a `publish_context`. One without a kind is what cinder-csi left behind (`DevicePath` only): a disk of the
    /// node's own virtual machine, its serial number being the volume's id.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for anything that [`Connection::to_context`] would not write.
    pub fn from_context(context: &StringMap) -> Result<Self> {
        let data = match context.get(context_key::DATA) {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::invalid("publish_context: data is not JSON").because(error))?,
            None => serde_json::Value::Object(serde_json::Map::new()),
        };
        let size = context
            .get(context_key::SIZE)
            .map(|text| text.parse().map(Bytes::new))
            .transpose()
            .map_err(|error| Error::invalid("publish_context: size is not a number of bytes").because(error))?;
        let read_only = match context.get(context_key::READ_ONLY).map(String::as_str) {
            None => false,
            Some("true") => true,
            Some(other) => return Err(Error::invalid(format!("publish_context: readOnly is {other:?}"))),
        };
        Ok(Self {
            kind: context.get(context_key::KIND).cloned().unwrap_or_else(|| KIND_NOVA.to_owned()),
            data,
            size,
            read_only,
            sealed: context.get(context_key::SEALED).cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Connection, SizeRange, StringMap, VolumeId};
    use crate::error::Kind;
    use proptest::prelude::{any, proptest};

    #[test]
    fn sizes_round_up_to_gib_within_both_bounds() {
        let gib = |n| Bytes::from_gib(n).unwrap();
        let range = |required, limit| SizeRange::new(required, limit).unwrap();
        assert_eq!(range(Bytes::ZERO, None).whole_gib(1).unwrap(), 1);
        assert_eq!(range(Bytes::new(1), None).whole_gib(0).unwrap(), 1);
        assert_eq!(range(Bytes::new(Bytes::GIB + 1), None).whole_gib(1).unwrap(), 2);
        assert_eq!(range(gib(2), Some(gib(2))).whole_gib(1).unwrap(), 2);
        assert_eq!(range(gib(1), None).whole_gib(5).unwrap(), 5);
        let error = range(Bytes::new(1), Some(Bytes::new(2))).whole_gib(0).unwrap_err();
        assert_eq!(error.kind(), Kind::OutOfRange);
        assert_eq!(SizeRange::new(gib(2), Some(gib(1))).unwrap_err().kind(), Kind::InvalidArgument);
    }

    proptest! {
        #[test]
        fn gib_ceil_never_loses_a_byte(bytes in any::<u64>()) {
            let size = Bytes::new(bytes);
            let up = u128::from(size.gib_ceil()) * u128::from(Bytes::GIB);
            assert!(up >= u128::from(bytes) && up - u128::from(bytes) < u128::from(Bytes::GIB));
            assert!(size.gib_floor() * Bytes::GIB <= bytes);
        }

        #[test]
        fn identifiers_never_panic(text in any::<String>()) {
            if let Ok(id) = text.parse::<VolumeId>() {
                assert_eq!(id.as_str(), text);
            }
        }
    }

    #[test]
    fn a_connection_survives_the_publish_context() {
        let connection = Connection {
            kind: "iscsi".to_owned(),
            data: serde_json::json!({"target_lun": 1}),
            size: Some(Bytes::new(5)),
            read_only: true,
            sealed: None,
        };
        let context = connection.to_context().unwrap();
        assert_eq!(Connection::from_context(&context).unwrap(), connection);
    }

    #[test]
    fn a_context_of_cinder_csi_is_a_nova_disk() {
        let context = StringMap::from([("DevicePath".to_owned(), "/dev/vdb".to_owned())]);
        assert_eq!(Connection::from_context(&context).unwrap().kind, super::KIND_NOVA);
    }

    #[test]
    fn a_context_too_large_is_refused_not_cut() {
        let data = serde_json::json!("y".repeat(5000));
        let connection = Connection { kind: "x".to_owned(), data, size: None, read_only: false, sealed: None };
        assert!(connection.to_context().is_err());
    }
}
