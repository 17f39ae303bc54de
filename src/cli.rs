//! The command line: subcommands, their options, and what `--help` teaches.
//!
//! Everything here is validated data; nothing is read from disk or network yet. An option that can also be set in
//! cloud.conf is an `Option` (or an empty list): `app` merges the two, the command line wins.
//!
//! Every long option is documented in `docs/options.md`; `tests/documentation.rs` holds that.

#![allow(rustdoc::broken_intra_doc_links, reason = "`[Global]` in a help text is a section of cloud.conf, not a link")]

pub mod address;
mod cloud;
mod command;
mod defaults;
pub mod name;
mod node;
mod service;
pub mod size;
mod trial;

pub use address::{Endpoint, HttpEndpoint};
pub use cloud::{CloudOptions, ConfigurationOptions};
pub use command::{All, Check, Controller, Node, NodeId, Role};
pub use defaults::Defaults;
pub use name::{DriverName, KeyValue, ProviderName, TopologySegment, TopologyValue};
pub use node::{HostOptions, NodeOptions, PlaceOptions};
pub use service::{Attach, DriverOptions, LogFormat, LogOptions, ServiceOptions};
pub use trial::Try;

use clap::{Parser, Subcommand};

const ABOUT: &str = "Storage of OpenStack for containers: a CSI driver for Cinder

One program serves the Container Storage Interface to Kubernetes, or to any
other orchestrator. It runs as
  controller  once or twice per cluster: holds the OpenStack credential; makes,
              attaches, grows, snapshots and deletes volumes
  node        on every machine: finds, formats and mounts what was attached;
              holds no credential
  all         both in one process, for a single machine or for a trial";

const EXAMPLES: &str = "Examples:
  Is the configuration good, and what does this cloud offer?
    fuxi-csi check --cloud-config /etc/kubernetes/cloud.conf

  The two services, as the manifests start them:
    fuxi-csi controller --endpoint unix:///csi/csi.sock \\
        --cloud-config /etc/config/cloud.conf --cluster blue
    fuxi-csi node --endpoint unix:///csi/csi.sock

  In the place of cinder-csi, serving its volumes:
    fuxi-csi controller --driver-name cinder.csi.openstack.org ...

  On one machine, with the variables of an openrc file, and then a volume's
  whole life through its socket:
    fuxi-csi all --endpoint /run/fuxi.sock &
    fuxi-csi try --endpoint /run/fuxi.sock

`fuxi-csi <COMMAND> --help` explains every option; docs/options.md and
docs/configuration.md say more.";

/// The whole command line.
#[derive(Debug, Clone, Parser)]
#[command(name = "fuxi-csi", version, about = "Storage of OpenStack for containers: a CSI driver for Cinder")]
#[command(long_about = ABOUT, after_long_help = EXAMPLES, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve the controller: make, attach, grow, snapshot and delete volumes
    #[command(after_long_help = command::CONTROLLER_EXAMPLES)]
    Controller(Controller),
    /// Serve a node: find, format and mount volumes on this machine
    #[command(after_long_help = command::NODE_EXAMPLES)]
    Node(Box<Node>),
    /// Serve controller and node in one process
    All(Box<All>),
    /// Look whether this machine and the cloud are ready, and say what to do if not
    #[command(after_long_help = command::CHECK_EXAMPLES)]
    Check(Box<Check>),
    /// Say which host this node is to the storage, or what the id of a node means
    #[command(after_long_help = command::NODE_ID_EXAMPLES)]
    NodeId(NodeId),
    /// Act as the orchestrator: take volumes through their whole life, and leave nothing behind
    #[command(after_long_help = trial::EXAMPLES)]
    Try(Try),
}

#[cfg(test)]
mod tests;
