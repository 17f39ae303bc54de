//! A driver in this process, and clients of it.

use fuxi_csi::csi::abilities::Abilities;
use fuxi_csi::csi::controller::ControllerService;
use fuxi_csi::csi::identity::IdentityService;
use fuxi_csi::csi::operation::Operations;
use fuxi_csi::csi::proto;
use fuxi_csi::csi::proto::controller_client::ControllerClient;
use fuxi_csi::csi::proto::identity_client::IdentityClient;
use fuxi_csi::error::Result;
use fuxi_csi::model::StringMap;
use fuxi_csi::observe::metrics::Metrics;
use fuxi_csi::provider::Provider;
use fuxi_csi::provider::memory::MemoryProvider;
use fuxi_csi::server::{self, Services, Shutdown, Socket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// A driver that serves.
pub(crate) struct Driver {
    pub(crate) operations: Operations,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    pub(crate) serving: JoinHandle<Result<()>>,
    socket: PathBuf,
    channel: Channel,
    _directory: TempDir,
}

impl Driver {
    /// One with volumes in memory.
    pub(crate) async fn in_memory() -> Self {
        Self::start(Arc::new(MemoryProvider::default()), Duration::from_secs(5)).await
    }

    /// One with this provider, which drains for so long.
    pub(crate) async fn start(provider: Arc<dyn Provider>, grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let operations = Operations::default();
        let metrics = Metrics::new("memory.test", "controller");
        let abilities = Abilities::of(provider.as_ref());
        let services = Services {
            identity: IdentityService::new("memory.test".to_owned(), "1.0".to_owned(), StringMap::new(), abilities),
            controller: Some(ControllerService::new(provider, operations.clone())),
            node: None,
        };
        let shutdown = Shutdown { begin: CancellationToken::new(), grace };
        let serving = {
            let (socket, operations) = (Socket::take(&path).unwrap(), operations.clone());
            let (metrics, shutdown) = (metrics.clone(), shutdown.clone());
            tokio::spawn(async move { server::serve(socket, services, &operations, metrics, shutdown).await })
        };
        let channel = connect(&path).await;
        Self { operations, metrics, shutdown, serving, socket: path, channel, _directory: directory }
    }

    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    pub(crate) fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a volume of 1 GiB and gives its id.
    pub(crate) async fn volume(&self, name: &str) -> String {
        self.controller().create_volume(create(name)).await.unwrap().into_inner().volume.unwrap().volume_id
    }
}

/// A connection to a socket.
pub(crate) async fn connect(path: &Path) -> Channel {
    Endpoint::from_shared(format!("unix:{}", path.display())).unwrap().connect().await.unwrap()
}

/// A mounted file system for one writer.
pub(crate) fn mounted() -> proto::VolumeCapability {
    mounted_as(proto::volume_capability::access_mode::Mode::SingleNodeWriter)
}

/// A mounted file system.
pub(crate) fn mounted_as(mode: proto::volume_capability::access_mode::Mode) -> proto::VolumeCapability {
    proto::VolumeCapability {
        access_mode: Some(proto::volume_capability::AccessMode { mode: mode.into() }),
        access_type: Some(
            proto::volume_capability::AccessType::Mount(proto::volume_capability::MountVolume::default()),
        ),
    }
}

/// A raw block volume.
pub(crate) fn raw_as(mode: proto::volume_capability::access_mode::Mode) -> proto::VolumeCapability {
    proto::VolumeCapability {
        access_type: Some(proto::volume_capability::AccessType::Block(proto::volume_capability::BlockVolume {})),
        ..mounted_as(mode)
    }
}

/// A size of at least so many GiB.
pub(crate) fn gib(gib: i64) -> Option<proto::CapacityRange> {
    Some(proto::CapacityRange { required_bytes: gib << 30, limit_bytes: 0 })
}

/// The request for a volume of 1 GiB.
pub(crate) fn create(name: &str) -> proto::CreateVolumeRequest {
    proto::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: gib(1),
        volume_capabilities: vec![mounted()],
        ..Default::default()
    }
}

/// The request to publish a volume to node `n`.
pub(crate) fn publish(volume_id: &str) -> proto::ControllerPublishVolumeRequest {
    proto::ControllerPublishVolumeRequest {
        volume_id: volume_id.to_owned(),
        node_id: "n".to_owned(),
        volume_capability: Some(mounted()),
        ..Default::default()
    }
}
