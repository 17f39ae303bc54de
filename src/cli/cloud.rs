//! Options of OpenStack: where its configuration is, and how it is used.

use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

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
