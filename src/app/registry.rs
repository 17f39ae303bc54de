//! What a process can be made of: the providers by name.

use crate::cli::Attach;
use crate::config::BlockStorageOptions;
use crate::csi::abilities::Abilities;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::node::connector::fibre_channel::FibreChannel;
use crate::node::connector::iscsi::Iscsi;
use crate::node::connector::local::Local;
use crate::node::connector::nvmeof::NvmeOverFabrics;
use crate::node::connector::rbd::Rbd;
use crate::node::connector::{Connector, Connectors};
use crate::node::device::Host;
use crate::node::mount::Mounter;
use crate::openstack::client::{Client, ServiceKind};
use crate::openstack::session::Session;
use crate::provider::Provider;
use crate::provider::cinder::{self, CinderProvider};
use crate::provider::manila::{self, ManilaProvider};
use crate::provider::memory::{MemoryProvider, MemorySettings};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a provider is made from.
#[derive(Debug)]
pub struct ProviderSetup {
    /// The driver's name.
    pub driver: String,
    /// The cluster's name.
    pub cluster: String,
    /// The clouds by name, the default one (whose name is empty) first. None are there for a provider that needs none.
    pub clouds: Vec<(String, Session)>,
    /// At most so many requests in flight per service.
    pub most_requests: usize,
    /// `[BlockStorage]` of cloud.conf.
    pub block_storage: BlockStorageOptions,
    /// Who attaches volumes; none for either.
    pub attach: Option<Attach>,
    /// The runtime config of manila-csi, if there is one.
    pub runtime_config: Option<PathBuf>,
    /// Knows the keys of Ceph.
    pub ceph: Arc<dyn cinder::CephClients>,
}

/// Makes a provider. It does not wait for anything: what needs the cloud is done when it is first needed, or in
/// [`Provider::ready`].
pub type MakeProvider = Box<dyn Fn(&ProviderSetup) -> Result<Arc<dyn Provider>> + Send + Sync>;

/// A provider that a process can have.
pub struct ProviderEntry {
    /// What it can do: for nodes, where no provider is made. On the controller it is held against the provider itself.
    pub abilities: Abilities,
    /// The services that each cloud must have; empty for a provider that needs no cloud at all.
    pub services: &'static [ServiceKind],
    /// Makes it.
    pub make: MakeProvider,
}

impl fmt::Debug for ProviderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderEntry")
            .field("abilities", &self.abilities)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// What a connector is made from.
#[derive(Debug, Clone)]
pub struct ConnectorSetup {
    /// Where the kernel's files are.
    pub host: Host,
    /// Runs programs.
    pub exec: Arc<dyn Exec>,
    /// Mounts.
    pub mounter: Arc<dyn Mounter>,
    /// The driver's own directory on the host.
    pub plugin_dir: PathBuf,
}

/// Makes a connector, for a node that attaches volumes itself.
pub type MakeConnector = Box<dyn Fn(&ConnectorSetup) -> Result<Arc<dyn Connector>> + Send + Sync>;

/// What a process can be made of.
#[derive(Default)]
pub struct Registry {
    providers: BTreeMap<String, ProviderEntry>,
    connectors: Vec<MakeConnector>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("providers", &self.providers)
            .field("connectors", &self.connectors.len())
            .finish()
    }
}

impl Registry {
    /// What this crate brings along.
    #[must_use]
    pub fn standard() -> Self {
        Self::default()
            .with_provider("cinder", cinder())
            .with_provider("manila", manila())
            .with_provider("memory", memory())
            .with_connector(Box::new(|setup| Ok(Arc::new(Local::new(setup.host.clone())))))
            .with_connector(native(Iscsi::new))
            .with_connector(native(NvmeOverFabrics::new))
            .with_connector(native(Rbd::new))
            .with_connector(native(FibreChannel::new))
    }

    /// Adds a connector for hosts; it replaces those before it under its own kinds.
    #[must_use]
    pub fn with_connector(mut self, make: MakeConnector) -> Self {
        self.connectors.push(make);
        self
    }

    /// The connectors of a host.
    ///
    /// # Errors
    /// What making one of them gives.
    pub(super) fn connectors(&self, setup: &ConnectorSetup) -> Result<Connectors> {
        self.connectors.iter().try_fold(Connectors::new(), |all, make| Ok(all.with(make(setup)?)))
    }

    /// Adds a provider, or replaces the one of this name.
    #[must_use]
    pub fn with_provider(mut self, name: &str, entry: ProviderEntry) -> Self {
        self.providers.insert(name.to_owned(), entry);
        self
    }

    /// The provider of this name.
    ///
    /// # Errors
    /// `InvalidArgument`: there is none.
    pub(super) fn provider(&self, name: &str) -> Result<&ProviderEntry> {
        self.providers.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.providers.keys().map(String::as_str).collect();
            Error::invalid(format!("--provider {name}: there is no such provider; there are: {}", known.join(", ")))
        })
    }
}

impl ProviderEntry {
    /// Makes the provider, and holds what it can do against what nodes are told.
    pub(super) fn make(&self, setup: &ProviderSetup) -> Result<Arc<dyn Provider>> {
        let provider = (self.make)(setup)?;
        let abilities = Abilities::of(provider.as_ref());
        if abilities != self.abilities {
            return Err(Error::internal(format!(
                "the registry says {:?} of the provider, which says {abilities:?} of itself: nodes would be told \
                 something else than the controller",
                self.abilities
            )));
        }
        Ok(provider)
    }
}

/// Makes a connector that needs the host and its programs.
fn native<C: Connector + 'static>(new: fn(Host, Arc<dyn Exec>) -> C) -> MakeConnector {
    Box::new(move |setup| Ok(Arc::new(new(setup.host.clone(), Arc::clone(&setup.exec)))))
}

/// Cinder volumes, attached by Nova.
fn cinder() -> ProviderEntry {
    ProviderEntry {
        abilities: Abilities {
            expand: true,
            snapshots: true,
            snapshot_topology: true,
            capacity: true,
            clone: true,
            block: true,
            read_only_publish: false,
            published_nodes: true,
        },
        services: &[ServiceKind::BlockStorage, ServiceKind::Compute],
        make: Box::new(|setup| {
            let settings = cinder::Settings {
                driver: setup.driver.clone(),
                cluster: setup.cluster.clone(),
                ignore_volume_zone: setup.block_storage.ignore_volume_az,
                ceph: Arc::clone(&setup.ceph),
                attach: match setup.attach {
                    None => cinder::Attach::Both,
                    Some(Attach::Nova) => cinder::Attach::Nova,
                    Some(Attach::Host) => cinder::Attach::Host,
                },
            };
            let clients = setup.clouds.iter().map(|(name, session)| {
                let client = |service| Client::new(session.clone(), service, setup.most_requests);
                (name.clone(), client(ServiceKind::BlockStorage), client(ServiceKind::Compute))
            });
            Ok(Arc::new(CinderProvider::new(&settings, clients)?))
        }),
    }
}

/// Manila shares, opened to nodes by access rules.
fn manila() -> ProviderEntry {
    ProviderEntry {
        abilities: Abilities {
            expand: true,
            snapshots: true,
            snapshot_topology: false,
            capacity: true,
            clone: false,
            block: false,
            read_only_publish: true,
            published_nodes: false,
        },
        services: &[ServiceKind::SharedFileSystem],
        make: Box::new(|setup| {
            let settings = manila::Settings {
                driver: setup.driver.clone(),
                cluster: setup.cluster.clone(),
                runtime_config: setup.runtime_config.clone(),
            };
            let clients = setup.clouds.iter().map(|(name, session)| {
                (name.clone(), Client::new(session.clone(), ServiceKind::SharedFileSystem, setup.most_requests))
            });
            Ok(Arc::new(ManilaProvider::new(&settings, clients)?))
        }),
    }
}

/// Volumes in memory: for tests and for trying out an orchestrator.
fn memory() -> ProviderEntry {
    ProviderEntry {
        abilities: Abilities::of(&MemoryProvider::default()),
        services: &[],
        make: Box::new(|_| Ok(Arc::new(MemoryProvider::new(MemorySettings::default())))),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectorSetup, ProviderSetup, Registry};
    use crate::config::BlockStorageOptions;
    use crate::exec::SystemExec;
    use crate::node::device::Host;
    use crate::node::mount::system::SystemMounter;
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn a_host_has_a_connector_for_every_kind_that_the_driver_knows_itself() {
        let setup = ConnectorSetup {
            host: Host::default(),
            exec: Arc::new(SystemExec::default()),
            mounter: Arc::new(SystemMounter::default()),
            plugin_dir: PathBuf::from("/nowhere"),
        };
        let connectors = Registry::standard().connectors(&setup).unwrap();
        for kind in ["iscsi", "nvmeof", "nvme", "rbd", "fibre_channel", "local"] {
            let connector = connectors.get(kind).unwrap();
            assert!(connector.kinds().contains(&kind), "{kind}: {connector:?}");
        }
        assert!(connectors.get("nfs").is_err(), "files on NFS are for those who ask for them");
    }

    #[test]
    fn an_unknown_provider_is_refused_with_those_that_are_known() {
        let error = Registry::standard().provider("floppy").unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn a_registry_that_lies_about_a_provider_is_found_out() {
        let setup = ProviderSetup {
            driver: "d".to_owned(),
            cluster: "c".to_owned(),
            clouds: Vec::new(),
            most_requests: 1,
            block_storage: BlockStorageOptions::default(),
            attach: None,
            runtime_config: None,
            ceph: Arc::new(Vec::new()),
        };
        let mut entry = super::memory();
        assert!(entry.make(&setup).is_ok());
        entry.abilities.expand = false;
        assert!(entry.make(&setup).map(drop).unwrap_err().to_string().contains("the registry says"));
    }
}
