//! The options of `fuxi-csi try`, which acts as the orchestrator.

use super::address::http_url;
use super::{Endpoint, KeyValue, LogOptions, size};
use crate::config::duration;
use crate::model::Bytes;
use clap::Args;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

pub(super) const EXAMPLES: &str = "Examples:
  One volume, then twenty:
    fuxi-csi try --endpoint /run/fuxi.sock
    fuxi-csi try --endpoint /run/fuxi.sock --volumes 20 --parallel 5 \\
        --parameter type=ssd

  Controller and node apart, and the controller's OpenStack calls counted:
    fuxi-csi try --endpoint /run/controller.sock \\
        --node-endpoint /run/node.sock \\
        --metrics-url http://127.0.0.1:8080/metrics

It runs on the machine of the node service and needs root, since it writes
and reads back data in the mounted volumes. Ctrl-C cleans up as well.";

/// `fuxi-csi try`
#[derive(Debug, Clone, Args)]
pub struct Try {
    /// The socket of the controller service: unix:///PATH or a bare path
    #[arg(long, value_name = "SOCKET", env = "CSI_ENDPOINT")]
    pub endpoint: Endpoint,

    /// The socket of a node service; give it again for more nodes [default: the same as --endpoint]
    ///
    /// With two or more, volumes also move from one node to the next.
    #[arg(long = "node-endpoint", value_name = "SOCKET")]
    pub given_node_endpoints: Vec<Endpoint>,

    /// Count OpenStack calls from this /metrics page, such as http://127.0.0.1:8080/metrics; can be repeated
    #[arg(long = "metrics-url", value_name = "URL", value_parser = http_url)]
    pub metrics_urls: Vec<Url>,

    /// How many volumes
    #[arg(long, value_name = "N", default_value = "1")]
    pub volumes: NonZeroU32,

    /// How many at once
    #[arg(long, value_name = "N", default_value = "1")]
    pub parallel: NonZeroU32,

    /// How large each, such as 1Gi
    #[arg(long, value_name = "SIZE", default_value = "1Gi", value_parser = size::parse)]
    pub size: Bytes,

    /// The file system [default: the driver's]
    #[arg(long, value_name = "FSTYPE")]
    pub fstype: Option<String>,

    /// A parameter of the StorageClass, such as type=ssd; can be repeated
    #[arg(long = "parameter", value_name = "KEY=VALUE")]
    pub parameters: Vec<KeyValue>,

    /// A parameter of the VolumeSnapshotClass; can be repeated
    #[arg(long = "snapshot-parameter", value_name = "KEY=VALUE")]
    pub snapshot_parameters: Vec<KeyValue>,

    /// Make a backup and restore it; fails where the cloud has no backup service [default: if it has one]
    #[arg(long = "backup", overrides_with = "without_backup")]
    pub with_backup: bool,

    /// Make no backup
    #[arg(long = "no-backup", overrides_with = "with_backup")]
    pub without_backup: bool,

    /// Where staging and target paths are made [default: a new directory below the system's temporary one]
    #[arg(long, value_name = "DIRECTORY")]
    pub work_dir: Option<PathBuf>,

    /// Use raw block devices instead of file systems
    #[arg(long, conflicts_with = "fstype")]
    pub block: bool,

    /// A file of KEY=VALUE lines: the secret that the classes would name, such as cloud=east
    #[arg(long, value_name = "FILE")]
    pub secrets_file: Option<PathBuf>,

    /// How long one CSI call may take before it is repeated
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = duration::parse)]
    pub timeout: Duration,

    /// How long a call is repeated while the driver says "not now", before the step has failed
    ///
    /// Calls are repeated as the sidecars of Kubernetes do: after ABORTED, UNAVAILABLE and DEADLINE_EXCEEDED, with
    /// pauses of 1, 2, 4 and then 8 seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10m", value_parser = duration::parse)]
    pub patience: Duration,

    /// What is logged.
    #[command(flatten)]
    pub log: LogOptions,
}

impl Try {
    /// The sockets of the node services.
    #[must_use]
    pub fn node_endpoints(&self) -> Vec<Endpoint> {
        match self.given_node_endpoints.as_slice() {
            [] => vec![self.endpoint.clone()],
            given => given.to_vec(),
        }
    }

    /// Whether a backup is made; none for "if there is a backup service".
    #[must_use]
    pub fn backup(&self) -> Option<bool> {
        match (self.with_backup, self.without_backup) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}
