//! How a volume gets to this machine: one [`Connector`] per kind of connection.
//!
//! A connector ends where a device or an export is there and proven to be the volume's; file systems, mounts and the
//! record are not its business. What it knows it gets in a [`Link`]: after a restart the record brings the same link back,
//! so a connector keeps no state of its own.

pub mod fibre_channel;
mod field;
pub mod iscsi;
mod kernel;
pub mod local;
mod lock;
mod multipath;
pub mod nfs_file;
pub mod nvmeof;
mod portal;
pub mod program;
pub mod rbd;
mod release;
mod scsi;
pub mod share;
pub mod virtual_disk;
mod watch;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::{AccessMode, Bytes, Connection, Secrets, VolumeId};
use crate::node::device::Device;
use crate::node::mount::SecretOption;
use async_trait::async_trait;
use program::Programs;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A volume and the way to it.
#[derive(Debug, Clone)]
pub struct Link {
    /// The volume.
    pub volume: VolumeId,
    /// What the controller said about the way. Data from OpenStack: to be checked like any stranger's.
    pub connection: Connection,
    /// What the controller sealed to this node, opened (by the names that Cinder's `connection_info` has, such as
    /// `auth_password`), and while staging also the secrets of the class.
    pub secrets: Secrets,
    /// Who will use it.
    pub mode: AccessMode,
    /// The device that it was proven to be the last time; none before that. Its [`Device::wwid`] is what tells the volume
    /// from another one that got its place (the same target and LUN, say) meanwhile.
    pub device: Option<Device>,
}

impl Link {
    /// Whether nothing on this node may write to it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.connection.read_only || self.mode.is_read_only()
    }

    /// Whether other nodes may have it at the same time. If not, a connector that can makes the storage keep them off.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.mode.is_multi_node()
    }
}

/// What a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A block device.
    Block(Device),
    /// Something that is mounted as it is.
    Share(Share),
}

/// An export of a file server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What mount(2) takes as its source.
    pub source: String,
    /// What mount(2) takes as its type.
    pub fstype: String,
    /// Options that the connection needs.
    pub options: Vec<String>,
    /// One more, that nobody may see.
    pub secret: Option<SecretOption>,
    /// A program that mounts it better than mount(2) does, where it is installed.
    pub helper: Option<&'static str>,
}

/// One kind of connection. Every method may be repeated after a crash at any point.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync {
    /// The kinds of [`Connection`] that it serves.
    fn kinds(&self) -> &[&str];

    /// Whether its connections lead to shares, which have the file system of their server; if not, to devices. The kind of
    /// a connection does not tell: of `nfs` are shares of Manila, and volumes of Cinder that are files.
    fn has_shares(&self) -> bool {
        false
    }

    /// Connects, waits until the volume is there and proves that it is the volume: by identity, and by size where the
    /// connection tells it. A larger device is fine (the volume grew since), a smaller one is not.
    ///
    /// # Errors
    /// `Unavailable`: it did not appear; repeat. `WrongState`: what is there is not the volume.
    /// `InvalidArgument`: the connection's data make no sense.
    async fn connect(&self, call: &Call, link: &Link) -> Result<Source>;

    /// Looks for a connected volume without changing anything; none if it is not here. Proves identity as `connect` does.
    ///
    /// # Errors
    /// `WrongState`: it is not clear which device is the volume. `Internal`: the system cannot be asked.
    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>>;

    /// Makes the kernel see that a volume grew, and waits until it shows at least `size`. Returns what it shows at last,
    /// which may be less: the caller judges.
    ///
    /// # Errors
    /// `NotFound`: it is not here.
    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source>;

    /// Takes the volume from this machine; success for what is not here.
    ///
    /// # Errors
    /// `Busy`: something uses it still. `InvalidArgument`: the connection's data make no sense, so that nothing can have
    /// been connected with them.
    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()>;
}

/// The connectors of this node, by kind.
#[derive(Debug, Clone, Default)]
pub struct Connectors {
    by_kind: BTreeMap<String, Arc<dyn Connector>>,
    programs: Option<Programs>,
}

impl Connectors {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connector under all its kinds.
    #[must_use]
    pub fn with(mut self, connector: Arc<dyn Connector>) -> Self {
        for kind in connector.kinds() {
            // Some back ends write the kind in capitals.
            self.by_kind.insert(kind.to_ascii_lowercase(), connector.clone());
        }
        self
    }

    /// Adds external programs, for all kinds that no connector serves.
    #[must_use]
    pub fn with_programs(self, programs: Programs) -> Self {
        Self { programs: Some(programs), ..self }
    }

    /// The connector of a kind.
    ///
    /// # Errors
    /// `Unsupported`, naming the kinds that there are. `WrongState`: there is a program that is not to be trusted.
    pub fn get(&self, kind: &str) -> Result<Arc<dyn Connector>> {
        if let Some(connector) = self.by_kind.get(&kind.to_ascii_lowercase()) {
            return Ok(Arc::clone(connector));
        }
        if let Some(program) = self.programs.as_ref().map(|programs| programs.find(kind)).transpose()?.flatten() {
            return Ok(program);
        }
        let known: Vec<_> = self.by_kind.keys().map(String::as_str).collect();
        let programs =
            self.programs.as_ref().map(|programs| format!(", nor a program in {}", programs.directory().display()));
        Err(Error::unsupported(format!(
            "this node has no connector for connections of kind {kind:?}, only for {}{}",
            known.join(", "),
            programs.unwrap_or_default()
        )))
    }
}
