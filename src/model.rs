//! The nouns that all layers share: identifiers, sizes, access, topology, volumes, connections. No I/O here.

mod access;
mod connection;
mod identifier;
mod size;
mod snapshot;
mod topology;
mod volume;

pub use access::{AccessKind, AccessMode, Capability};
pub use connection::{Connection, KIND_CEPHFS, KIND_NFS, KIND_NOVA};
pub use identifier::{NodeId, SnapshotId, VolumeId};
pub use jiff::Timestamp;
pub use size::{Bytes, SizeRange};
pub use snapshot::{Snapshot, SnapshotFilter, SnapshotSpec};
pub use topology::{MANILA_CSI, Topology, TopologyRequirement, key_prefix, zone_key};
pub use volume::{ContentSource, Health, Severity, Volume, VolumeSpec, VolumeStatus};

use secrecy::SecretString;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// String to string, as in parameters, metadata and contexts.
pub type StringMap = BTreeMap<String, String>;

/// The secrets of a request; their values never show in `Debug`.
pub type Secrets = BTreeMap<String, SecretString>;

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
