//! What a process can be made of: the providers by name.

use crate::config::BlockStorageOptions;
use crate::csi::abilities::Abilities;
use crate::error::{Error, Result};
use crate::openstack::client::{Client, ServiceKind};
use crate::openstack::session::Session;
use crate::provider::Provider;
use crate::provider::cinder::{self, CinderProvider};
use crate::provider::manila::{self, ManilaProvider};
use crate::provider::memory::{MemoryProvider, MemorySettings};
use std::collections::BTreeMap;
use std::fmt;
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

/// What a process can be made of.
#[derive(Debug, Default)]
pub struct Registry {
    providers: BTreeMap<String, ProviderEntry>,
}

impl Registry {
    /// What this crate brings along.
    #[must_use]
    pub fn standard() -> Self {
        Self::default()
            .with_provider("cinder", cinder())
            .with_provider("manila", manila())
            .with_provider("memory", memory())
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
            let settings = manila::Settings { driver: setup.driver.clone(), cluster: setup.cluster.clone() };
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
    use super::{ProviderSetup, Registry};
    use crate::config::BlockStorageOptions;

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
        };
        let mut entry = super::memory();
        assert!(entry.make(&setup).is_ok());
        entry.abilities.expand = false;
        assert!(entry.make(&setup).map(drop).unwrap_err().to_string().contains("the registry says"));
    }
}
