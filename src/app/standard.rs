//! What this crate itself brings along: OpenStack's providers, and the connectors of hosts.

use super::registry::{ConnectorSetup, Delivery, ProviderEntry, Registry};
use crate::cli::Attach;
use crate::csi::abilities::Abilities;
use crate::error::Result;
use crate::exec::Exec;
use crate::node::connector::fibre_channel::FibreChannel;
use crate::node::connector::iscsi::Iscsi;
use crate::node::connector::local::Local;
use crate::node::connector::nvmeof::NvmeOverFabrics;
use crate::node::connector::rbd::Rbd;
use crate::node::device::Host;
use crate::openstack::client::{Client, ServiceKind};
use crate::provider::cinder::{self, CinderProvider};
use crate::provider::manila::{self, ManilaProvider};
use crate::provider::memory::{MemoryProvider, MemorySettings};
use std::sync::Arc;

impl Registry {
    /// What this crate brings along.
    #[must_use]
    pub fn standard() -> Self {
        Self::empty()
            .with_provider("cinder", cinder())
            .with_provider("manila", manila())
            .with_provider("memory", memory())
            .with_connector(|setup| Ok(Local::new(setup.host.clone())))
            .with_connector(native(Iscsi::new))
            .with_connector(native(NvmeOverFabrics::new))
            .with_connector(native(Rbd::new))
            .with_connector(native(FibreChannel::new))
    }
}

/// A connector that needs the host and its programs.
fn native<C>(new: fn(Host, Arc<dyn Exec>) -> C) -> impl Fn(&ConnectorSetup) -> Result<C> {
    move |setup| Ok(new(setup.host.clone(), Arc::clone(&setup.exec)))
}

/// Cinder volumes, attached by Nova.
fn cinder() -> ProviderEntry {
    let abilities = Abilities {
        expand: true,
        snapshots: true,
        zones: true,
        snapshot_topology: true,
        capacity: true,
        clone: true,
        block: true,
        read_only_publish: false,
        published_nodes: true,
    };
    ProviderEntry::new(abilities, |setup| {
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
        CinderProvider::new(&settings, clients)
    })
    .using(&[ServiceKind::BlockStorage, ServiceKind::Compute])
    .delivered(Delivery::AsAttached)
}

/// Manila shares, opened to nodes by access rules.
fn manila() -> ProviderEntry {
    let abilities = Abilities {
        expand: true,
        snapshots: true,
        zones: true,
        snapshot_topology: false,
        capacity: true,
        clone: false,
        block: false,
        read_only_publish: true,
        published_nodes: false,
    };
    ProviderEntry::new(abilities, |setup| {
        let settings = manila::Settings {
            driver: setup.driver.clone(),
            cluster: setup.cluster.clone(),
            runtime_config: setup.runtime_config.clone(),
        };
        let clients = setup.clouds.iter().map(|(name, session)| {
            (name.clone(), Client::new(session.clone(), ServiceKind::SharedFileSystem, setup.most_requests))
        });
        ManilaProvider::new(&settings, clients)
    })
    .using(&[ServiceKind::SharedFileSystem])
    .delivered(Delivery::AsShares)
}

/// Volumes in memory: for tests and for trying out an orchestrator.
fn memory() -> ProviderEntry {
    ProviderEntry::new(Abilities::of(&MemoryProvider::default()), |_| {
        Ok(MemoryProvider::new(MemorySettings::default()))
    })
    .delivered(Delivery::AsAttached)
}
