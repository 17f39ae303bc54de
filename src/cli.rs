//! The command line: subcommands, their options, and what `--help` teaches.
//!
//! Everything here is validated data; nothing is read from disk or network yet. An option that can also be set in
//! cloud.conf is an `Option` (or an empty list): `app` merges the two, the command line wins.
//!
//! Every long option is documented in `docs/options.md`; `tests/documentation.rs` holds that.

#![allow(rustdoc::broken_intra_doc_links, reason = "`[Global]` in a help text is a section of cloud.conf, not a link")]

pub mod address;
mod defaults;
pub mod name;
pub mod size;
mod trial;

pub use address::{Endpoint, HttpEndpoint};
pub use defaults::Defaults;
pub use name::{DriverName, KeyValue, ProviderName, TopologySegment, TopologyValue};
pub use trial::Try;

use crate::config::{MetadataSource, duration};
use crate::model;
use crate::node::identity::host;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use url::Url;

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
    #[command(after_long_help = CONTROLLER_EXAMPLES)]
    Controller(Controller),
    /// Serve a node: find, format and mount volumes on this machine
    #[command(after_long_help = NODE_EXAMPLES)]
    Node(Box<Node>),
    /// Serve controller and node in one process
    All(Box<All>),
    /// Look whether this machine and the cloud are ready, and say what to do if not
    #[command(after_long_help = CHECK_EXAMPLES)]
    Check(Box<Check>),
    /// Say which host this node is to the storage, or what the id of a node means
    #[command(after_long_help = NODE_ID_EXAMPLES)]
    NodeId(NodeId),
    /// Act as the orchestrator: take volumes through their whole life, and leave nothing behind
    #[command(after_long_help = trial::EXAMPLES)]
    Try(Try),
}

const CONTROLLER_EXAMPLES: &str = "Examples:
  Two clouds: classes choose by the key `cloud` of their secret, and the one
  without a name is the default:
    fuxi-csi controller --endpoint unix:///csi/csi.sock \\
        --cloud-config /etc/config/cloud.conf --cloud-name '' --cloud-name east

  A common file and one with what differs here; the later wins, key by key:
    fuxi-csi controller --endpoint unix:///csi/csi.sock \\
        --cloud-config common.conf --cloud-config here.conf";

const NODE_EXAMPLES: &str = "Examples:
  A Nova server with a metadata service or a config drive needs nothing else:
    fuxi-csi node --endpoint unix:///csi/csi.sock

  One without: say which server it is, and where:
    fuxi-csi node --endpoint unix:///csi/csi.sock --zone nova \\
        --node-id 5d0cf0b7-3c7b-4b7e-9d63-0cb7f8c0a2e1

  At most 20 volumes, and pods may also be placed by region:
    fuxi-csi node --endpoint unix:///csi/csi.sock --attach-limit 20 \\
        --topology topology.kubernetes.io/region=north";

const CHECK_EXAMPLES: &str = "Examples:
  Where the controller is to run:
    fuxi-csi check --cloud-config /etc/kubernetes/cloud.conf

  Where a node is to run:
    fuxi-csi check --role node";

const NODE_ID_EXAMPLES: &str = "Examples:
  The id that `fuxi-csi node --attach host` would have here, and what is in it:
    fuxi-csi node-id

  What is in the id of another node:
    fuxi-csi node-id --decode AQEg...

  A new key for secrets, in front of the present one; then restart the node:
    fuxi-csi node-id --new-key";

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

/// Which driver it is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Driver")]
pub struct DriverOptions {
    /// Where volumes come from
    #[arg(long, value_name = "NAME", default_value = "cinder", env = "FUXI_CSI_PROVIDER")]
    pub provider: ProviderName,

    /// The name under which the orchestrator knows the driver [default: PROVIDER.fuxi.openstack.org]
    ///
    /// StorageClasses name it as their provisioner, and volumes belong to it for life. With
    /// cinder.csi.openstack.org the driver takes over the volumes, classes and parameters of cinder-csi. It has to be
    /// the same on the controller and on all nodes.
    #[arg(long = "driver-name", value_name = "NAME", env = "FUXI_CSI_DRIVER_NAME")]
    pub given_name: Option<DriverName>,

    /// Who attaches volumes to nodes [default: nova on a node, either on a controller]
    ///
    /// A node that is a server of Nova gets them from its hypervisor. Any other machine is a host, and attaches them
    /// itself, with what Cinder tells the controller. A controller without this option serves both; with `host` it needs
    /// no Nova.
    #[arg(long, value_enum, value_name = "WHO", env = "FUXI_CSI_ATTACH")]
    pub attach: Option<Attach>,
}

/// Who attaches volumes to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Attach {
    /// Nova, to its servers
    Nova,
    /// The host itself
    Host,
}

impl DriverOptions {
    /// The driver's name: the given one, or the provider's default.
    #[must_use]
    pub fn name(&self) -> DriverName {
        self.given_name.clone().unwrap_or_else(|| self.provider.default_driver_name())
    }
}

/// How the services are served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub struct ServiceOptions {
    /// The Unix socket to serve CSI on: unix:///PATH or a bare path
    ///
    /// A socket left behind by a dead process is replaced; one that a living process serves is refused.
    #[arg(long, value_name = "SOCKET", env = "CSI_ENDPOINT")]
    pub endpoint: Endpoint,

    /// Serve /metrics and /healthz on this address, such as :8080 or 127.0.0.1:8080 [default: off]
    #[arg(long, value_name = "ADDRESS", env = "FUXI_CSI_HTTP_ENDPOINT")]
    pub http_endpoint: Option<HttpEndpoint>,

    /// How long running calls may take to end after SIGTERM
    ///
    /// Seconds, or for example 45s or 2m. New calls are refused at once. Keep it below the pod's
    /// terminationGracePeriodSeconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = duration::parse)]
    #[arg(env = "FUXI_CSI_SHUTDOWN_GRACE")]
    pub shutdown_grace: Duration,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogOptions {
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "FUXI_CSI_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, or a filter such as info,fuxi_csi::openstack=debug
    ///
    /// The filter is that of RUST_LOG: levels by module, the most specific wins. At info there is one line per CSI
    /// call, with its duration, result and OpenStack request ids; at debug also one per OpenStack request.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG", value_parser = log_filter)]
    pub log_level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal
    Text,
    /// For machines: one object per line
    Json,
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write a level, or for example info,fuxi_csi::openstack=debug"))
}

/// Where the configuration is.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigurationOptions {
    /// A cloud.conf, as cinder-csi reads it; give it again for more, and the later file wins
    ///
    /// Without one, OS_CLOUD and clouds.yaml are used, and then the OS_* variables of an openrc file. Files are read
    /// again when they change. A node reads the sections [BlockStorage] and [Metadata] only, and needs no file at all.
    /// Several files can also be separated by commas.
    #[arg(long, value_name = "FILE", env = "CLOUD_CONFIG", value_delimiter = ',')]
    pub cloud_config: Vec<PathBuf>,
}

/// How OpenStack is used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "OpenStack")]
pub struct CloudOptions {
    /// A cloud to serve: the NAME of a [Global "NAME"] of cloud.conf, or of a cloud of clouds.yaml
    ///
    /// Give it again for more. The first is the default cloud; but the [Global] without a name, which is written '', is
    /// the default wherever it is listed. StorageClasses choose another by the key `cloud` of their secret. Without
    /// this option: the [Global] without a name, or what OS_CLOUD names, or the only cloud that there is.
    #[arg(long, value_name = "NAME", env = "FUXI_CSI_CLOUD_NAME", value_delimiter = ',')]
    pub cloud_name: Vec<String>,

    /// The name of this cluster: written into the metadata of everything that is made
    ///
    /// Give each cluster of a project a name of its own, so that one can tell whose a volume is. Keep it for the life
    /// of the cluster.
    #[arg(long, value_name = "NAME", default_value = "kubernetes", env = "CLUSTER_NAME", value_parser = cluster_name)]
    pub cluster: String,

    /// At most so many requests in flight per OpenStack service; fewer after 429 or 503
    #[arg(long, value_name = "N", default_value = "32", env = "FUXI_CSI_MAX_REQUESTS")]
    pub max_requests: NonZeroUsize,

    /// The runtime config of manila-csi: which export locations of NFS shares may be used
    ///
    /// JSON, read again for every publication: {"nfs": {"matchExportLocationAddress": "10.0.0.0/24"}}. For
    /// --provider manila.
    #[arg(long, value_name = "FILE", env = "FUXI_CSI_RUNTIME_CONFIG_FILE")]
    pub runtime_config_file: Option<PathBuf>,
}

/// Metadata values of Cinder have at most 255 characters.
const LONGEST_CLUSTER_NAME: usize = 255;

fn cluster_name(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if text.trim() != text || length == 0 || length > LONGEST_CLUSTER_NAME || text.chars().any(char::is_control) {
        return Err(format!(
            "the name of a cluster has 1 to {LONGEST_CLUSTER_NAME} characters, none of them a control character, and \
             no blank at its ends"
        ));
    }
    Ok(text.to_owned())
}

/// What this machine is, and how volumes are kept on it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub struct NodeOptions {
    /// Which Nova server this is, by UUID [default: asked of the metadata sources]
    #[arg(long, value_name = "ID", env = "FUXI_CSI_NODE_ID")]
    pub node_id: Option<model::NodeId>,

    /// In which zone this machine is [default: asked of the metadata sources]
    #[arg(long, value_name = "ZONE", env = "FUXI_CSI_ZONE")]
    pub zone: Option<TopologyValue>,

    /// One more topology segment of this node, such as topology.kubernetes.io/region=north; can be repeated
    #[arg(long, value_name = "KEY=VALUE", visible_alias = "additional-topology", env = "FUXI_CSI_TOPOLOGY")]
    #[arg(value_delimiter = ',')]
    pub topology: Vec<TopologySegment>,

    /// Where to look for this server's id and zone, in this order
    ///
    /// A list of config-drive, metadata-service, cloud-init and dmi; cinder-csi's spelling (configDrive,
    /// metadataService) is understood as well. Without this option: `search-order` of [Metadata] in cloud.conf, or
    /// config-drive,metadata-service,cloud-init,dmi. A config drive is as old as the server; the service is up to date.
    #[arg(long, value_name = "LIST", env = "FUXI_CSI_METADATA_SEARCH_ORDER", value_delimiter = ',')]
    pub metadata_search_order: Vec<MetadataSource>,

    /// The metadata service's base URL
    #[arg(long, value_name = "URL", default_value = "http://169.254.169.254", env = "FUXI_CSI_METADATA_URL")]
    #[arg(value_parser = http_url)]
    pub metadata_url: Url,

    /// At most so many volumes on this node [default: found out from its disk bus]
    ///
    /// Counts the volumes of this driver. Without this option: `node-volume-attach-limit` of [BlockStorage] in
    /// cloud.conf, or what the machine's disk bus can take less the disks that are not ours.
    #[arg(long, value_name = "N", env = "FUXI_CSI_ATTACH_LIMIT")]
    pub attach_limit: Option<NonZeroU32>,

    /// Keep so many places of the disk bus free for other disks [default: as many as there are now]
    ///
    /// Has no effect where --attach-limit or cloud.conf say the limit.
    #[arg(long, value_name = "N", env = "FUXI_CSI_RESERVED_ATTACHMENTS")]
    pub reserved_attachments: Option<u32>,

    /// The address from which this machine mounts shares [default: that of the default route]
    ///
    /// For --provider manila: the access rules of NFS shares are for it.
    #[arg(long, value_name = "ADDRESS", env = "FUXI_CSI_SHARE_ADDRESS")]
    pub share_address: Option<IpAddr>,

    /// Where the node keeps its records.
    #[command(flatten)]
    pub place: PlaceOptions,

    /// What storage knows of this machine, with `--attach host`.
    #[command(flatten)]
    pub host: HostOptions,

    /// Programs for connections that the driver does not know itself [default: /usr/libexec/fuxi-csi/connectors]
    ///
    /// An executable in this directory serves the connections of Cinder's driver_volume_type that it is called by. Counts
    /// with --attach host only.
    #[arg(long, value_name = "DIRECTORY", default_value = "/usr/libexec/fuxi-csi/connectors")]
    #[arg(env = "FUXI_CSI_CONNECTOR_DIR", hide_default_value = true)]
    pub connector_dir: PathBuf,

    /// How long such a program may take for one step, before it is killed with all that it started
    ///
    /// Seconds, or for example 90s or 5m. Counts with --attach host only.
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = limit)]
    #[arg(env = "FUXI_CSI_CONNECTOR_LIMIT")]
    pub connector_limit: Duration,

    /// Use volumes that are raw files on an NFS export
    ///
    /// Off, since every host that can mount an export can write to every volume on it. Counts with --attach host only.
    #[arg(long, env = "FUXI_CSI_NFS_FILES")]
    pub nfs_files: bool,

    /// The file system of volumes whose class names none
    #[arg(long, value_name = "FSTYPE", default_value = "ext4", env = "FUXI_CSI_DEFAULT_FSTYPE")]
    #[arg(value_parser = ["ext3", "ext4", "xfs", "btrfs"])]
    pub default_fstype: String,
}

/// Where the node keeps what it has to remember.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Node")]
pub struct PlaceOptions {
    /// Where the node keeps its records and keys [default: /var/lib/kubelet/plugins/DRIVER]
    #[arg(long = "plugin-dir", value_name = "DIRECTORY", env = "FUXI_CSI_PLUGIN_DIR")]
    pub given_plugin_dir: Option<PathBuf>,
}

impl PlaceOptions {
    /// Where the node keeps its records and keys.
    #[must_use]
    pub fn plugin_dir(&self, driver: &DriverName) -> PathBuf {
        self.given_plugin_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/kubelet/plugins").join(driver.as_str()))
    }
}

/// What storage knows of this machine, with `--attach host`.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Host (with --attach host)")]
pub struct HostOptions {
    /// The name under which storage knows this machine [default: its host name]
    #[arg(long, value_name = "NAME", env = "FUXI_CSI_HOST_NAME")]
    pub host_name: Option<String>,

    /// The address from which this machine reaches storage [default: that of its default route]
    #[arg(long, value_name = "IP", env = "FUXI_CSI_STORAGE_ADDRESS")]
    pub storage_address: Option<IpAddr>,

    /// Whether volumes come over several paths, which multipathd joins [default: whether multipathd runs]
    #[arg(long, value_name = "BOOLEAN", env = "FUXI_CSI_MULTIPATH")]
    pub multipath: Option<bool>,
}

impl HostOptions {
    /// What counts more than what is found on the host.
    #[must_use]
    pub fn facts(&self) -> host::HostOptions {
        host::HostOptions { name: self.host_name.clone(), address: self.storage_address, multipath: self.multipath }
    }
}

fn limit(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("nothing can be done in no time; write for example 120 or 5m".to_owned()),
        limit => Ok(limit),
    }
}

fn http_url(text: &str) -> Result<Url, String> {
    let expected = "write for example http://127.0.0.1:8080/metrics";
    let url = Url::parse(text).map_err(|error| format!("{error}; {expected}"))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        scheme => Err(format!("{scheme} is not http; {expected}")),
    }
}

#[cfg(test)]
mod tests;
