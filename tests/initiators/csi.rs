//! The driver at its sockets, asked as an orchestrator's sidecars do: again while the answer says "not now".

use fuxi_csi::csi::proto::controller_client::ControllerClient;
use fuxi_csi::csi::proto::node_client::NodeClient;
use fuxi_csi::csi::proto::volume_capability::access_mode::Mode;
use fuxi_csi::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use fuxi_csi::csi::proto::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetInfoRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

/// How long an answer may take; the guest is slow.
const ANSWER: Duration = Duration::from_secs(150);

/// How long "not now" is put up with.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where volumes are staged and published on a node.
const STAGED: &str = "/run/staged";
const PUBLISHED: &str = "/run/published";

pub(crate) type Context = BTreeMap<String, String>;

/// A connection to a driver: `unix:///path` or `http://address:port`. Waits until somebody is there.
pub(crate) async fn connect(address: &str) -> Channel {
    let end = Instant::now() + PATIENCE;
    loop {
        let attempt = match address.strip_prefix("unix://") {
            Some(path) => {
                let path = path.to_owned();
                let dial = tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
                });
                Endpoint::from_static("http://csi.invalid").connect_with_connector(dial).await
            }
            None => Endpoint::from_shared(address.to_owned()).unwrap().connect().await,
        };
        match attempt {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < end, "nobody serves {address}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The controller at this address.
pub(crate) async fn controller(address: &str) -> ControllerClient<Channel> {
    ControllerClient::new(connect(address).await)
}

/// A request with a deadline.
pub(crate) fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

/// Asks until the answer is not "not now"; panics for a refusal.
pub(crate) async fn persist<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) if is_passing(&status) && Instant::now() < end => {
                println!("   {what}: again after {:?} {}", status.code(), status.message());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(status) => panic!("{what}: {:?} {}", status.code(), status.message()),
        }
    }
}

fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Aborted | Code::Unavailable | Code::DeadlineExceeded)
}

/// As Kubernetes asks for a volume of one pod.
pub(crate) fn ext4() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeMultiWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume { fs_type: "ext4".to_owned(), ..Default::default() })),
    }
}

/// The node service of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) rpcs: NodeClient<Channel>,
    pub(crate) id: String,
}

impl Node {
    /// The one at this address. What forwards it to a guest takes connections before the driver is up.
    pub(crate) async fn at(address: &str) -> Self {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut rpcs = NodeClient::new(connect(address).await);
            match rpcs.node_get_info(timed(NodeGetInfoRequest {})).await {
                Ok(info) => return Self { rpcs, id: info.into_inner().node_id },
                Err(status) => assert!(Instant::now() < end, "{address}: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where a volume is staged.
    pub(crate) fn staged(volume: &str) -> String {
        format!("{STAGED}/{}", volume.replace('/', "_"))
    }

    /// Where a volume is published.
    pub(crate) fn published(volume: &str) -> String {
        format!("{PUBLISHED}/{}", volume.replace('/', "_"))
    }

    /// The message for staging. The orchestrator makes the directory: see [`MAKE_STAGED`].
    pub(crate) fn stage_request(volume: &str, context: &Context) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            publish_context: context.clone(),
            staging_target_path: Self::staged(volume),
            volume_capability: Some(ext4()),
            ..Default::default()
        }
    }

    /// The message for unstaging.
    pub(crate) fn unstage_request(volume: &str) -> NodeUnstageVolumeRequest {
        NodeUnstageVolumeRequest { volume_id: volume.to_owned(), staging_target_path: Self::staged(volume) }
    }

    /// The message for expanding what is staged.
    pub(crate) fn expand_request(volume: &str, bytes: u64) -> NodeExpandVolumeRequest {
        NodeExpandVolumeRequest {
            volume_id: volume.to_owned(),
            volume_path: Self::staged(volume),
            staging_target_path: Self::staged(volume),
            capacity_range: Some(CapacityRange { required_bytes: i64::try_from(bytes).unwrap(), limit_bytes: 0 }),
            volume_capability: Some(ext4()),
            ..Default::default()
        }
    }

    pub(crate) async fn stage(&self, volume: &str, context: &Context) {
        let message = Self::stage_request(volume, context);
        persist("stage", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.node_stage_volume(timed(message)).await }
        })
        .await;
    }

    pub(crate) async fn publish(&self, volume: &str, context: &Context) {
        let message = NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            publish_context: context.clone(),
            staging_target_path: Self::staged(volume),
            target_path: Self::published(volume),
            volume_capability: Some(ext4()),
            ..Default::default()
        };
        persist("publish on the node", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.node_publish_volume(timed(message)).await }
        })
        .await;
    }

    pub(crate) async fn expand(&self, volume: &str, bytes: u64) -> i64 {
        let message = Self::expand_request(volume, bytes);
        persist("expand on the node", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.node_expand_volume(timed(message)).await }
        })
        .await
        .capacity_bytes
    }

    pub(crate) async fn unpublish(&self, volume: &str) {
        let message = NodeUnpublishVolumeRequest { volume_id: volume.to_owned(), target_path: Self::published(volume) };
        persist("unpublish on the node", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.node_unpublish_volume(timed(message)).await }
        })
        .await;
    }

    pub(crate) async fn unstage(&self, volume: &str) {
        let message = Self::unstage_request(volume);
        persist("unstage", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.node_unstage_volume(timed(message)).await }
        })
        .await;
    }
}

/// A volume's size as the controller is asked for it.
pub(crate) fn gib(count: i64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes: count << 30, limit_bytes: 0 })
}
