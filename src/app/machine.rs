//! The node's side: from options to a [`Node`].

use super::registry::{ConnectorSetup, Delivery, Registry};
use crate::cli::{self, Attach, DriverOptions, HostOptions, NodeOptions, TopologySegment};
use crate::config::{MetadataSource, NodeConfig, Source as ConfigSource};
use crate::error::{Error, Result};
use crate::exec::{Exec, SystemExec};
use crate::initiator::Initiator;
use crate::model::{NodeId, zone_key};
use crate::node::connector::Connectors;
use crate::node::connector::nfs_file::NfsFile;
use crate::node::connector::program::Programs;
use crate::node::connector::share::FileServer;
use crate::node::connector::virtual_disk::VirtualDisk;
use crate::node::device::Host;
use crate::node::filesystem::Filesystems;
use crate::node::identity::config_drive::ConfigDrive;
use crate::node::identity::host::{self, HostFacts};
use crate::node::identity::instance::{CloudInit, Dmi};
use crate::node::identity::metadata_service::{self, MetadataService};
use crate::node::identity::{Identity, IdentityOptions, Source};
use crate::node::keychain::Keychain;
use crate::node::mount::Mounter;
use crate::node::mount::system::SystemMounter;
use crate::node::{Node, NodeParts};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// How volumes come to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As disks of the Nova server that it is.
    Server,
    /// Over connections that it makes itself.
    Host,
    /// As shares that it mounts.
    Shares,
}

impl Way {
    /// The way of a node to volumes that are delivered like this.
    pub(super) fn of(delivery: Delivery, attach: Option<Attach>) -> Self {
        match (delivery, attach) {
            (Delivery::AsShares, _) => Self::Shares,
            (Delivery::ByConnectors, _) | (Delivery::AsAttached, Some(Attach::Host)) => Self::Host,
            (Delivery::AsAttached, Some(Attach::Nova) | None) => Self::Server,
        }
    }
}

/// Makes the node that the options describe. `files` are those of `--cloud-config`, of which a node needs no credential;
/// `has_zones` says whether volumes are in zones, so that the node has to know its own.
///
/// # Errors
/// `InvalidArgument`: options or files that make no sense.
pub(super) async fn node(
    driver: &DriverOptions,
    options: &NodeOptions,
    files: Vec<PathBuf>,
    way: Way,
    has_zones: bool,
    registry: &Registry,
) -> Result<Node> {
    let driver_name = &driver.name();
    let config = tokio::task::spawn_blocking(move || ConfigSource::new(files, Vec::new()).load_for_node())
        .await
        .map_err(|error| Error::internal("read the configuration").because(error))??;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let host = Host::default();
    let exec: Arc<dyn Exec> = Arc::new(SystemExec::default());
    let mounter: Arc<dyn Mounter> = Arc::new(SystemMounter::default());
    let plugin_dir = options.place.plugin_dir(driver_name);
    let plugin_dir = tokio::task::spawn_blocking(move || without_links(&plugin_dir))
        .await
        .map_err(|error| Error::internal("resolve the plugin directory").because(error))??;
    let metadata = || sources(options, &config, &host, &exec, &mounter, &plugin_dir);
    let (sources, keychain, client) = match way {
        Way::Server => (metadata()?, Keychain::none(), None),
        Way::Host => {
            let (facts, keychain) = host_facts(&host, &options.host, plugin_dir.clone()).await?;
            (vec![Arc::new(facts) as Arc<dyn Source>], keychain, None)
        }
        Way::Shares => {
            let (client, keychain) = share_client(&host, options, plugin_dir.clone()).await?;
            (metadata()?, keychain, Some(client))
        }
    };
    let identity = Identity::new(
        IdentityOptions {
            id: options.node_id.clone(),
            host: client,
            has_disk_bus: way == Way::Server,
            zone: options.zone.as_ref().map(|zone| zone.as_str().to_owned()),
            limit: options.attach_limit.or(config.block_storage.node_volume_attach_limit),
            reserved: options.reserved_attachments,
            topology_key: has_zones.then(|| zone_key(driver_name.as_str())),
            topology: TopologySegment::place(&options.topology)?,
        },
        sources,
    );
    let setup = ConnectorSetup {
        host: host.clone(),
        exec: Arc::clone(&exec),
        mounter: Arc::clone(&mounter),
        plugin_dir: plugin_dir.clone(),
    };
    Node::new(NodeParts {
        connectors: match way {
            Way::Server => Connectors::new().with(Arc::new(VirtualDisk::new(host.clone()))),
            Way::Shares => registry.connectors(Connectors::new().with(Arc::new(FileServer::new())), &setup)?,
            Way::Host => of_host(&setup, options, registry)?,
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

/// A directory as the mount table has it, without symbolic links: the node mounts below it and looks for that in there.
/// What is not there yet will be made without links.
fn without_links(directory: &Path) -> Result<PathBuf> {
    let failed = |error| Error::internal(format!("resolve {}", directory.display())).because(error);
    let absolute = std::path::absolute(directory).map_err(failed)?;
    for there in absolute.ancestors() {
        match there.canonicalize() {
            Ok(real) => return Ok(absolute.strip_prefix(there).map_or_else(|_| real.clone(), |rest| real.join(rest))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(absolute)
}

/// The connectors of a node that attaches volumes itself.
fn of_host(setup: &ConnectorSetup, options: &NodeOptions, registry: &Registry) -> Result<Connectors> {
    let ConnectorSetup { host, exec, mounter, plugin_dir } = setup.clone();
    let programs =
        Programs::new(&options.connector_dir, host.clone(), Arc::clone(&exec)).limited(options.connector_limit);
    let mut connectors = Connectors::new().with_programs(programs);
    if options.nfs_files {
        connectors = connectors.with(Arc::new(NfsFile::new(host, exec, mounter, plugin_dir.join("exports"))));
    }
    registry.connectors(connectors, setup)
}

/// What a node that mounts shares is to the controller (its address, its name, and the key to which Ceph keys are
/// sealed), and its keys, which are made at the first start.
async fn share_client(host: &Host, options: &NodeOptions, plugin_dir: PathBuf) -> Result<(NodeId, Keychain)> {
    let (host, address, options) = (host.clone(), options.share_address, options.host.facts());
    tokio::task::spawn_blocking(move || {
        let name = host::name(&host, &options)?;
        let keychain = Keychain::load(&plugin_dir, &name)?;
        let public_key =
            keychain.public().ok_or_else(|| Error::internal("a keychain without a key was let through"))?;
        let client = Initiator {
            public_key,
            host: name,
            ip: address.or_else(host::address_by_route),
            iqn: None,
            nqn: None,
            nvme_host_id: None,
            wwpns: Vec::new(),
            wwnns: Vec::new(),
            multipath: false,
            system_uuid: None,
        };
        Ok((client.pack()?, keychain))
    })
    .await
    .map_err(|error| Error::internal("load the node's keys").because(error))?
}

/// What storage knows of this machine, and the keys of its secrets, which are made at the first start.
async fn host_facts(host: &Host, options: &HostOptions, plugin_dir: PathBuf) -> Result<(HostFacts, Keychain)> {
    let (host, options) = (host.clone(), options.facts());
    tokio::task::spawn_blocking(move || {
        let keychain = Keychain::load(&plugin_dir, &host::name(&host, &options)?)?;
        let key = keychain.public().ok_or_else(|| Error::internal("a keychain without a key was let through"))?;
        Ok((HostFacts::new(host, options, key), keychain))
    })
    .await
    .map_err(|error| Error::internal("load the node's keys").because(error))?
}

/// Prints which host this node is to the storage, or what an id means.
///
/// # Errors
/// `InvalidArgument`: the id is none of ours, or a fact of this host cannot be. `Internal`: nothing can be written.
pub(super) fn print_node_id(options: &cli::NodeId) -> Result<()> {
    let facts = match &options.decode {
        Some(id) => Initiator::unpack(id)?,
        None => {
            let (host, host_options) = (Host::default(), options.host.facts());
            let plugin_dir = options.place.plugin_dir(&options.driver.name());
            let name = host::name(&host, &host_options)?;
            let keychain = if options.new_key {
                Keychain::renew(&plugin_dir, &name)?
            } else {
                Keychain::load(&plugin_dir, &name)?
            };
            let key = keychain.public().ok_or_else(|| Error::internal("a keychain without a key was let through"))?;
            host::gather(&host, &host_options, key)?
        }
    };
    let text = format!("{}\n{facts}", facts.pack()?);
    io::stdout().write_all(text.as_bytes()).map_err(|error| Error::internal("write to standard output").because(error))
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

#[cfg(test)]
mod tests {
    use super::without_links;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_plugin_directory_is_where_the_mount_table_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("data/kubelet/plugins/there")).unwrap();
        symlink(root.join("data/kubelet"), root.join("kubelet")).unwrap();
        symlink("there", root.join("kubelet/plugins/link")).unwrap();
        for (given, expected) in [
            ("kubelet/plugins/there", "data/kubelet/plugins/there"),
            ("kubelet/plugins/link", "data/kubelet/plugins/there"),
            // Not made yet.
            ("kubelet/plugins/new", "data/kubelet/plugins/new"),
            ("kubelet/later/new", "data/kubelet/later/new"),
            ("data", "data"),
        ] {
            assert_eq!(without_links(&root.join(given)).unwrap(), root.join(expected), "{given}");
        }
        let relative = without_links("nowhere/to/be/found".as_ref()).unwrap();
        assert_eq!(relative, std::env::current_dir().unwrap().canonicalize().unwrap().join("nowhere/to/be/found"));
        fs::write(root.join("file"), "").unwrap();
        assert!(without_links(&root.join("file/plugins")).is_err());
    }
}
