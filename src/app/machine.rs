//! The node's side: from options to a [`Node`].

use crate::cli::{DriverName, NodeOptions, TopologySegment};
use crate::config::{MetadataSource, NodeConfig, Source as ConfigSource};
use crate::error::{Error, Result};
use crate::exec::{Exec, SystemExec};
use crate::model::zone_key;
use crate::node::connector::Connectors;
use crate::node::connector::virtual_disk::VirtualDisk;
use crate::node::device::Host;
use crate::node::filesystem::Filesystems;
use crate::node::identity::config_drive::ConfigDrive;
use crate::node::identity::instance::{CloudInit, Dmi};
use crate::node::identity::metadata_service::{self, MetadataService};
use crate::node::identity::{Identity, IdentityOptions, Source};
use crate::node::keychain::Keychain;
use crate::node::mount::Mounter;
use crate::node::mount::system::SystemMounter;
use crate::node::{Node, NodeParts};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// Makes the node that the options describe. `files` are those of `--cloud-config`, of which a node needs no credential.
///
/// # Errors
/// `InvalidArgument`: options or files that make no sense.
pub(super) async fn node(driver: &DriverName, options: &NodeOptions, files: Vec<PathBuf>) -> Result<Node> {
    let config = tokio::task::spawn_blocking(move || ConfigSource::new(files, Vec::new()).load_for_node())
        .await
        .map_err(|error| Error::internal("read the configuration").because(error))??;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let host = Host::default();
    let exec: Arc<dyn Exec> = Arc::new(SystemExec::default());
    let mounter: Arc<dyn Mounter> = Arc::new(SystemMounter::default());
    let plugin_dir = options.plugin_dir(driver);
    let identity = Identity::new(
        IdentityOptions {
            id: options.node_id.clone(),
            zone: options.zone.as_ref().map(|zone| zone.as_str().to_owned()),
            limit: options.attach_limit.or(config.block_storage.node_volume_attach_limit),
            reserved: options.reserved_attachments,
            topology_key: Some(zone_key(driver.as_str())),
            topology: TopologySegment::place(&options.topology)?,
        },
        sources(options, &config, &host, &exec, &mounter, &plugin_dir)?,
    );
    Node::new(NodeParts {
        connectors: Connectors::new().with(Arc::new(VirtualDisk::new(host.clone()))),
        filesystems: Filesystems::default(),
        default_fstype: options.default_fstype.clone(),
        exec,
        mounter,
        identity,
        keychain: Keychain::none(),
        host,
        plugin_dir,
    })
}

/// Who is asked which server this is, in the order of the command line, or of cloud.conf, or the usual one.
fn sources(
    options: &NodeOptions,
    config: &NodeConfig,
    host: &Host,
    exec: &Arc<dyn Exec>,
    mounter: &Arc<dyn Mounter>,
    plugin_dir: &Path,
) -> Result<Vec<Arc<dyn Source>>> {
    let usual = MetadataSource::ALL;
    let order = [&options.metadata_search_order[..], &config.metadata.search_order[..], &usual[..]];
    let order = order.into_iter().find(|order| !order.is_empty()).unwrap_or_default();
    let limit = config.metadata.request_timeout.unwrap_or(metadata_service::DEFAULT_LIMIT);
    order
        .iter()
        .map(|source| {
            Ok(match source {
                MetadataSource::ConfigDrive => {
                    Arc::new(ConfigDrive::new(Arc::clone(exec), Arc::clone(mounter), plugin_dir)) as Arc<dyn Source>
                }
                MetadataSource::MetadataService => {
                    Arc::new(MetadataService::new(document(&options.metadata_url), limit)?)
                }
                MetadataSource::CloudInit => Arc::new(CloudInit::new(host)),
                MetadataSource::Dmi => Arc::new(Dmi::new(host)),
            })
        })
        .collect()
}

/// The document below the metadata service's base URL.
fn document(base: &Url) -> String {
    format!("{}{}", base.as_str().trim_end_matches('/'), metadata_service::DOCUMENT)
}
