//! Who uses a volume, and as what.

use serde::{Deserialize, Serialize};

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
