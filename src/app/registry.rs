//! What a process can be made of: providers by name, and connectors.

use crate::cli::Attach;
use crate::config::BlockStorageOptions;
use crate::csi::abilities::Abilities;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::node::connector::{Connector, Connectors};
use crate::node::device::Host;
use crate::node::mount::Mounter;
use crate::openstack::client::ServiceKind;
use crate::openstack::session::Session;
use crate::provider::Provider;
use crate::provider::cinder::CephClients;
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
    pub ceph: Arc<dyn CephClients>,
}

/// How the volumes of a provider get to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As `--attach` says: as disks that Nova attaches to its servers, or over connections that hosts make themselves.
    AsAttached,
    /// Over connections that every node makes itself, by a [`Connector`].
    ByConnectors,
    /// As shares that nodes mount.
    AsShares,
}

/// Makes a provider.
type MakeProvider = Box<dyn Fn(&ProviderSetup) -> Result<Arc<dyn Provider>> + Send + Sync>;

/// A provider that a process can have.
pub struct ProviderEntry {
    /// What it can do: for nodes, where no provider is made. On the controller it is held against the provider itself.
    pub(super) abilities: Abilities,
    /// The services that each cloud must have; empty for a provider that needs no cloud at all.
    pub(super) services: &'static [ServiceKind],
    pub(super) delivery: Delivery,
    make: MakeProvider,
}

impl fmt::Debug for ProviderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderEntry")
            .field("abilities", &self.abilities)
            .field("services", &self.services)
            .field("delivery", &self.delivery)
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

/// Makes a connector.
type MakeConnector = Box<dyn Fn(&ConnectorSetup) -> Result<Arc<dyn Connector>> + Send + Sync>;

/// What a process can be made of.
pub struct Registry {
    version: String,
    providers: BTreeMap<String, ProviderEntry>,
    connectors: Vec<MakeConnector>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("version", &self.version)
            .field("providers", &self.providers)
            .field("connectors", &self.connectors.len())
            .finish()
    }
}

impl Registry {
    /// Nothing yet. [`Registry::standard`] has what this crate brings along.
    #[must_use]
    pub fn empty() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), providers: BTreeMap::new(), connectors: Vec::new() }
    }

    /// Says the version of the program that is made of this; without it, this crate's counts.
    #[must_use]
    pub fn of_version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    /// Adds a provider, or replaces the one of this name.
    #[must_use]
    pub fn with_provider(mut self, name: &str, entry: ProviderEntry) -> Self {
        self.providers.insert(name.to_owned(), entry);
        self
    }

    /// Adds a connector; it replaces those before it under its own kinds. It is made at the start of a node, and does not wait
    /// for anything then.
    #[must_use]
    pub fn with_connector<C: Connector + 'static>(
        mut self,
        make: impl Fn(&ConnectorSetup) -> Result<C> + Send + Sync + 'static,
    ) -> Self {
        self.connectors.push(Box::new(move |setup| Ok(Arc::new(make(setup)?))));
        self
    }

    /// The version of the program.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The connectors of a node that makes its connections itself, on top of others.
    ///
    /// # Errors
    /// What making one of them gives.
    pub(super) fn connectors(&self, others: Connectors, setup: &ConnectorSetup) -> Result<Connectors> {
        self.connectors.iter().try_fold(others, |all, make| Ok(all.with(make(setup)?)))
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
    /// A provider with these abilities, which needs no cloud, and whose volumes nodes connect to by a [`Connector`].
    ///
    /// `make` is called on the controller. It does not wait for anything: what needs the service is done when it is first
    /// needed, or in [`Provider::ready`].
    #[must_use]
    pub fn new<P: Provider>(
        abilities: Abilities,
        make: impl Fn(&ProviderSetup) -> Result<P> + Send + Sync + 'static,
    ) -> Self {
        Self {
            abilities,
            services: &[],
            delivery: Delivery::ByConnectors,
            make: Box::new(move |setup| Ok(Arc::new(make(setup)?))),
        }
    }

    /// Needs these services of each cloud.
    #[must_use]
    pub fn using(self, services: &'static [ServiceKind]) -> Self {
        Self { services, ..self }
    }

    /// Its volumes get to nodes in this way.
    #[must_use]
    pub fn delivered(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }

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

#[cfg(test)]
mod tests {
    use super::{ConnectorSetup, ProviderEntry, ProviderSetup, Registry};
    use crate::config::BlockStorageOptions;
    use crate::csi::abilities::Abilities;
    use crate::exec::SystemExec;
    use crate::node::connector::Connectors;
    use crate::node::device::Host;
    use crate::node::mount::system::SystemMounter;
    use crate::provider::memory::MemoryProvider;
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
        let connectors = Registry::standard().connectors(Connectors::new(), &setup).unwrap();
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
        let entry = |abilities| ProviderEntry::new(abilities, |_| Ok(MemoryProvider::default()));
        let honest = Abilities::of(&MemoryProvider::default());
        assert!(entry(honest).make(&setup).is_ok());
        let entry = entry(Abilities { expand: false, ..honest });
        assert!(entry.make(&setup).map(drop).unwrap_err().to_string().contains("the registry says"));
    }
}
