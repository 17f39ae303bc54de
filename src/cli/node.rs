//! Options of a node: what this machine is, where it keeps its records, and what storage knows of it.

use super::address::http_url;
use super::{DriverName, TopologySegment, TopologyValue};
use crate::config::{MetadataSource, duration};
use crate::model;
use crate::node::identity::host;
use clap::Args;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

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
