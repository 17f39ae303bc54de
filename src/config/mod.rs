//! The configuration: cloud.conf, clouds.yaml and the environment, read, merged and validated.
//!
//! A [`Source`] says where to read; [`Source::load`] makes a [`Config`] of it, or an error that names the file, line and
//! key. What is merely not understood is a warning. A [`Fingerprint`] tells cheaply whether a file has changed since, so
//! that credentials and certificates can be rotated without a restart:
//!
//! ```no_run
//! # use fuxi_csi::config::Source;
//! let source = Source::new(vec!["/etc/kubernetes/cloud.conf".into()], vec![]);
//! let mut config = source.load()?; // blocks, as does is_current
//! if !config.fingerprint.is_current() {
//!     config = source.load()?; // on an error, keep the old one and say so
//! }
//! # Ok::<(), fuxi_csi::error::Error>(())
//! ```
//!
//! Passwords, tokens and secrets are [`SecretString`](secrecy::SecretString)s from the moment in which they are parsed.

pub mod cloud_conf;
mod clouds_yaml;
pub mod duration;
mod environment;
mod files;
pub mod gcfg;
mod login;
pub mod metadata;
mod settings;
mod source;
mod spelling;

pub use cloud_conf::BlockStorageOptions;
pub use environment::{Environment, variables};
pub use files::Fingerprint;
pub use metadata::{MetadataOptions, MetadataSource};
pub use source::Source;

use crate::openstack::cloud::Cloud;

/// What a controller needs to know; validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// The clouds that are served.
    pub clouds: Clouds,
    /// Options of volumes.
    pub block_storage: BlockStorageOptions,
    /// Options of a node's search for itself.
    pub metadata: MetadataOptions,
    /// The files that all this was read from, certificates and keys included.
    pub fingerprint: Fingerprint,
    /// What was not understood, or probably not meant: one sentence each, beginning with its place.
    pub warnings: Vec<String>,
}

/// What a node needs to know: nothing about clouds.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Options of volumes.
    pub block_storage: BlockStorageOptions,
    /// Options of the search for the node's own id.
    pub metadata: MetadataOptions,
    /// The files that all this was read from.
    pub fingerprint: Fingerprint,
    /// What was not understood, or probably not meant: one sentence each, beginning with its place.
    pub warnings: Vec<String>,
}

/// The clouds that are served: at least one.
#[derive(Debug, Clone)]
pub struct Clouds {
    /// The one whose volumes have bare handles, and that is used where none is named.
    pub default: Cloud,
    /// The others, in the order in which they were asked for. Their names are distinct and not empty.
    pub others: Vec<Cloud>,
}

impl Clouds {
    /// All of them, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Cloud> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// The one of this name; the empty name is the default cloud's, unless another has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cloud> {
        self.iter().find(|cloud| cloud.name == name).or_else(|| Some(&self.default).filter(|_| name.is_empty()))
    }
}
