//! The node's side: from options to a [`Node`].

use crate::cli::{DriverName, NodeOptions, TopologySegment};
use crate::config::{MetadataSource, NodeConfig, Source as ConfigSource};
use crate::error::{Error, Result};
use crate::exec::{Exec, SystemExec};
use crate::initiator::Initiator;
use crate::model::NodeId;
use crate::model::zone_key;
use crate::node::connector::Connectors;
use crate::node::connector::share::FileServer;
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
use nix::unistd::gethostname;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// How volumes come to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As disks of the Nova server that it is.
    Server,
    /// As shares that it mounts.
    Shares,
}

/// What a node that mounts shares is to the controller: its address, its name, and the key to which Ceph keys are sealed.
async fn share_client(address: Option<IpAddr>, plugin_dir: PathBuf) -> Result<(Keychain, NodeId)> {
    let load = move || {
        let host = gethostname()
            .map_err(|error| Error::internal("ask for this machine's name").because(std::io::Error::from(error)))?
            .to_string_lossy()
            .into_owned();
        let keychain = Keychain::load(&plugin_dir, &host)?;
        let public_key = keychain.public().ok_or_else(|| Error::internal("a keychain without a key"))?;
        let client = Initiator {
            public_key,
            host,
            ip: address.or_else(default_address),
            iqn: None,
            nqn: None,
            nvme_host_id: None,
            wwpns: Vec::new(),
            wwnns: Vec::new(),
            multipath: false,
            system_uuid: None,
        };
        Ok((keychain, client.pack()?))
    };
    tokio::task::spawn_blocking(load).await.map_err(|error| Error::internal("read the node's keys").because(error))?
}

/// The address that this machine has towards the rest of the world. Nothing is sent to find it out.
fn default_address() -> Option<IpAddr> {
    let towards = |any: IpAddr, there: IpAddr| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        // Addresses for documentation: no route but the default one leads there.
        socket.connect((there, 2049)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        .or_else(|| towards(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
}

/// Makes the node that the options describe. `files` are those of `--cloud-config`, of which a node needs no credential.
///
/// # Errors
/// `InvalidArgument`: options or files that make no sense.
pub(super) async fn node(driver: &DriverName, options: &NodeOptions, files: Vec<PathBuf>, way: Way) -> Result<Node> {
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
    let (keychain, client) = match way {
        Way::Server => (Keychain::none(), None),
        Way::Shares => {
            let (keychain, client) = share_client(options.share_address, plugin_dir.clone()).await?;
            (keychain, Some(client))
        }
    };
    let identity = Identity::new(
        IdentityOptions {
            id: options.node_id.clone(),
            host: client,
            zone: options.zone.as_ref().map(|zone| zone.as_str().to_owned()),
            limit: options.attach_limit.or(config.block_storage.node_volume_attach_limit),
            reserved: options.reserved_attachments,
            topology_key: Some(zone_key(driver.as_str())),
            topology: TopologySegment::place(&options.topology)?,
        },
        sources(options, &config, &host, &exec, &mounter, &plugin_dir)?,
    );
    Node::new(NodeParts {
        connectors: match way {
            Way::Server => Connectors::new().with(Arc::new(VirtualDisk::new(host.clone()))),
            Way::Shares => Connectors::new().with(Arc::new(FileServer::new())),
        },
        filesystems: Filesystems::default(),
        default_fstype: options.default_fstype.clone(),
        exec,
        mounter,
        identity,
        keychain,
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
