//! The commands that serve, look and tell: which options each of them has.

use super::{
    CloudOptions, ConfigurationOptions, DriverOptions, HostOptions, LogOptions, NodeOptions, PlaceOptions,
    ServiceOptions,
};
use crate::model;
use clap::{Args, ValueEnum};

pub(super) const CONTROLLER_EXAMPLES: &str = "Examples:
  Two clouds: classes choose by the key `cloud` of their secret, and the one
  without a name is the default:
    fuxi-csi controller --endpoint unix:///csi/csi.sock \\
        --cloud-config /etc/config/cloud.conf --cloud-name '' --cloud-name east

  A common file and one with what differs here; the later wins, key by key:
    fuxi-csi controller --endpoint unix:///csi/csi.sock \\
        --cloud-config common.conf --cloud-config here.conf";

pub(super) const NODE_EXAMPLES: &str = "Examples:
  A Nova server with a metadata service or a config drive needs nothing else:
    fuxi-csi node --endpoint unix:///csi/csi.sock

  One without: say which server it is, and where:
    fuxi-csi node --endpoint unix:///csi/csi.sock --zone nova \\
        --node-id 5d0cf0b7-3c7b-4b7e-9d63-0cb7f8c0a2e1

  At most 20 volumes, and pods may also be placed by region:
    fuxi-csi node --endpoint unix:///csi/csi.sock --attach-limit 20 \\
        --topology topology.kubernetes.io/region=north";

pub(super) const CHECK_EXAMPLES: &str = "Examples:
  Where the controller is to run:
    fuxi-csi check --cloud-config /etc/kubernetes/cloud.conf

  Where a node is to run:
    fuxi-csi check --role node";

pub(super) const NODE_ID_EXAMPLES: &str = "Examples:
  The id that `fuxi-csi node --attach host` would have here, and what is in it:
    fuxi-csi node-id

  What is in the id of another node:
    fuxi-csi node-id --decode AQEg...

  A new key for secrets, in front of the present one; then restart the node:
    fuxi-csi node-id --new-key";

/// `fuxi-csi controller`
#[derive(Debug, Clone, Args)]
pub struct Controller {
    /// Which driver it is.
    #[command(flatten)]
    pub driver: DriverOptions,
    /// How it is served.
    #[command(flatten)]
    pub service: ServiceOptions,
    /// Where the configuration is.
    #[command(flatten)]
    pub files: ConfigurationOptions,
    /// How OpenStack is used.
    #[command(flatten)]
    pub cloud: CloudOptions,
    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

/// `fuxi-csi node`
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// Which driver it is.
    #[command(flatten)]
    pub driver: DriverOptions,
    /// How it is served.
    #[command(flatten)]
    pub service: ServiceOptions,
    /// Where the configuration is; a node reads `[BlockStorage]` and `[Metadata]` only.
    #[command(flatten)]
    pub files: ConfigurationOptions,
    /// What this machine is.
    #[command(flatten)]
    pub node: NodeOptions,
    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

/// `fuxi-csi all`
#[derive(Debug, Clone, Args)]
pub struct All {
    /// Which driver it is.
    #[command(flatten)]
    pub driver: DriverOptions,
    /// How it is served.
    #[command(flatten)]
    pub service: ServiceOptions,
    /// Where the configuration is.
    #[command(flatten)]
    pub files: ConfigurationOptions,
    /// How OpenStack is used.
    #[command(flatten)]
    pub cloud: CloudOptions,
    /// What this machine is.
    #[command(flatten)]
    pub node: NodeOptions,
    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

/// `fuxi-csi check`
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// What this machine is to be
    #[arg(long, value_enum, default_value_t = Role::Controller, env = "FUXI_CSI_ROLE")]
    pub role: Role,
    /// Which driver it is to be.
    #[command(flatten)]
    pub driver: DriverOptions,
    /// Where the configuration is.
    #[command(flatten)]
    pub files: ConfigurationOptions,
    /// How OpenStack is used.
    #[command(flatten)]
    pub cloud: CloudOptions,
    /// What this machine is.
    #[command(flatten)]
    pub node: NodeOptions,
    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

/// `fuxi-csi node-id`
#[derive(Debug, Clone, Args)]
pub struct NodeId {
    /// Say what this id means, instead of this machine's
    #[arg(long, value_name = "ID", conflicts_with = "new_key")]
    pub decode: Option<model::NodeId>,

    /// Make a new key for secrets first; what was sealed to the earlier ones can still be opened
    #[arg(long)]
    pub new_key: bool,

    /// Which driver it is.
    #[command(flatten)]
    pub driver: DriverOptions,
    /// What this machine is.
    #[command(flatten)]
    pub host: HostOptions,
    /// Where the keys are.
    #[command(flatten)]
    pub place: PlaceOptions,
    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

/// The services of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// The controller: needs the cloud
    Controller,
    /// A node: needs programs and kernel modules
    Node,
    /// Both
    All,
}

impl Role {
    /// Whether the controller service is served.
    #[must_use]
    pub fn has_controller(self) -> bool {
        self != Self::Node
    }

    /// Whether the node service is served.
    #[must_use]
    pub fn has_node(self) -> bool {
        self != Self::Controller
    }
}
