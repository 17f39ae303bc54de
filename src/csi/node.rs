//! The Node service: volumes on this machine.

use crate::call::Call;
use crate::csi::abilities::Abilities;
use crate::csi::operation::{Claim, Operations};
use crate::csi::rpc::{Rpc, answer};
use crate::csi::{Answer, proto, request, response};
use crate::error::{Error, Result};
use crate::model::{Connection, SizeRange, VolumeId};
use crate::node::{Node, PublishRequest, StageRequest, Usage};
use proto::volume_usage::Unit;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use tonic::{Request, async_trait};

/// The Node service over this machine.
#[derive(Clone)]
pub struct NodeService {
    node: Arc<Node>,
    abilities: Abilities,
    operations: Operations,
}

impl fmt::Debug for NodeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeService").field("abilities", &self.abilities).finish_non_exhaustive()
    }
}

impl NodeService {
    /// The service over this machine; `abilities` are the provider's.
    #[must_use]
    pub fn new(node: Arc<Node>, abilities: Abilities, operations: Operations) -> Self {
        Self { node, abilities, operations }
    }

    async fn run<T, W, F>(&self, rpc: &Rpc, claim: Claim, doing: &'static str, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Node>, Call) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let node = Arc::clone(&self.node);
        self.operations.run(rpc, claim, doing, move |call| work(node, call)).await
    }
}

macro_rules! node {
    ($($method:ident($request:ident) -> $response:ident = $story:path;)*) => {
        #[async_trait]
        impl proto::node_server::Node for NodeService {
            $(async fn $method(&self, request: Request<proto::$request>) -> Answer<proto::$response> {
                let (rpc, message) = Rpc::begin(request);
                answer($story(self, &rpc, message).await)
            })*
        }
    };
}

node! {
    node_stage_volume(NodeStageVolumeRequest) -> NodeStageVolumeResponse = stage;
    node_unstage_volume(NodeUnstageVolumeRequest) -> NodeUnstageVolumeResponse = unstage;
    node_publish_volume(NodePublishVolumeRequest) -> NodePublishVolumeResponse = publish;
    node_unpublish_volume(NodeUnpublishVolumeRequest) -> NodeUnpublishVolumeResponse = unpublish;
    node_expand_volume(NodeExpandVolumeRequest) -> NodeExpandVolumeResponse = expand;
    node_get_volume_stats(NodeGetVolumeStatsRequest) -> NodeGetVolumeStatsResponse = stats;
    node_get_volume_health(NodeGetVolumeHealthRequest) -> NodeGetVolumeHealthResponse = health;
    node_get_capabilities(NodeGetCapabilitiesRequest) -> NodeGetCapabilitiesResponse = capabilities;
    node_get_info(NodeGetInfoRequest) -> NodeGetInfoResponse = info;
}

async fn stage(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodeStageVolumeRequest,
) -> Result<proto::NodeStageVolumeResponse> {
    let capability = request::capability("volume_capability", message.volume_capability);
    let stage = StageRequest {
        volume: request::id("volume_id", &message.volume_id)?,
        staging_path: request::path("staging_target_path", message.staging_target_path)?,
        capability: capability?,
        connection: Connection::from_context(&message.publish_context)?,
        volume_context: message.volume_context,
        secrets: request::secrets(message.secrets),
    };
    service.abilities.check("volume_capability", &stage.capability)?;
    service
        .run(
            rpc,
            Claim::volume(&stage.volume),
            "stage volume",
            |node, call| async move { node.stage(&call, &stage).await },
        )
        .await?;
    Ok(proto::NodeStageVolumeResponse {})
}

async fn unstage(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodeUnstageVolumeRequest,
) -> Result<proto::NodeUnstageVolumeResponse> {
    let volume: VolumeId = request::id("volume_id", &message.volume_id)?;
    let staging_path = request::path("staging_target_path", message.staging_target_path)?;
    service
        .run(rpc, Claim::volume(&volume), "unstage volume", |node, call| async move {
            node.unstage(&call, &volume, &staging_path).await
        })
        .await?;
    Ok(proto::NodeUnstageVolumeResponse {})
}

async fn publish(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodePublishVolumeRequest,
) -> Result<proto::NodePublishVolumeResponse> {
    let volume = request::id("volume_id", &message.volume_id)?;
    let target_path = request::path("target_path", message.target_path)?;
    let capability = request::capability("volume_capability", message.volume_capability)?;
    service.abilities.check("volume_capability", &capability)?;
    // The specification wants this code, and no other, for a volume that was not staged.
    let staging_path = request::optional_path("staging_target_path", message.staging_target_path)?
        .ok_or_else(|| Error::wrong_state("staging_target_path is missing: the volume has to be staged first"))?;
    let publish = PublishRequest {
        volume,
        staging_path,
        target_path,
        read_only: message.readonly || capability.mode.is_read_only(),
        capability,
        volume_context: message.volume_context,
    };
    service
        .run(rpc, Claim::volume(&publish.volume), "publish volume", |node, call| async move {
            node.publish(&call, &publish).await
        })
        .await?;
    Ok(proto::NodePublishVolumeResponse {})
}

async fn unpublish(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodeUnpublishVolumeRequest,
) -> Result<proto::NodeUnpublishVolumeResponse> {
    let volume: VolumeId = request::id("volume_id", &message.volume_id)?;
    let target_path = request::path("target_path", message.target_path)?;
    service
        .run(rpc, Claim::volume(&volume), "unpublish volume", |node, call| async move {
            node.unpublish(&call, &volume, &target_path).await
        })
        .await?;
    Ok(proto::NodeUnpublishVolumeResponse {})
}

async fn expand(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodeExpandVolumeRequest,
) -> Result<proto::NodeExpandVolumeResponse> {
    let volume: VolumeId = request::id("volume_id", &message.volume_id)?;
    let volume_path = request::path("volume_path", message.volume_path)?;
    let staging_path = request::optional_path("staging_target_path", message.staging_target_path)?;
    let size: SizeRange = request::size(message.capacity_range)?;
    if let Some(capability) = request::optional_capability("volume_capability", message.volume_capability)? {
        service.abilities.check("volume_capability", &capability)?;
    }
    let measured = service
        .run(rpc, Claim::volume(&volume), "expand volume", |node, call| async move {
            node.expand(&call, &volume, &volume_path, staging_path.as_deref(), size).await
        })
        .await?;
    Ok(proto::NodeExpandVolumeResponse { capacity_bytes: measured.to_wire() })
}

async fn stats(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodeGetVolumeStatsRequest,
) -> Result<proto::NodeGetVolumeStatsResponse> {
    let volume: VolumeId = request::id("volume_id", &message.volume_id)?;
    let volume_path = request::path("volume_path", message.volume_path)?;
    request::optional_path("staging_target_path", message.staging_target_path)?;
    let stats = service
        .run(rpc, Claim::none(), "get volume stats", |node, call| async move {
            node.stats(&call, &volume, &volume_path).await
        })
        .await?;
    let mut all = vec![usage(Unit::Bytes, stats.bytes)];
    all.extend(stats.inodes.map(|inodes| usage(Unit::Inodes, inodes)));
    Ok(proto::NodeGetVolumeStatsResponse { usage: all })
}

fn usage(unit: Unit, usage: Usage) -> proto::VolumeUsage {
    proto::VolumeUsage {
        available: response::count(usage.available),
        total: response::count(usage.total),
        used: response::count(usage.used),
        unit: unit.into(),
    }
}

async fn health(
    service: &NodeService,
    rpc: &Rpc,
    message: proto::NodeGetVolumeHealthRequest,
) -> Result<proto::NodeGetVolumeHealthResponse> {
    let volume: VolumeId = request::id("volume_id", &message.volume_id)?;
    let publish_path = request::optional_path("volume_publish_path", message.volume_publish_path)?;
    let staging_path = request::optional_path("staging_target_path", message.staging_target_path)?;
    let id = volume.clone();
    let problems = service
        .run(rpc, Claim::none(), "get volume health", |node, call| async move {
            node.health(&call, &volume, publish_path.as_deref(), staging_path.as_deref()).await
        })
        .await?;
    Ok(proto::NodeGetVolumeHealthResponse { volume_health: Some(response::health(id, problems)) })
}

async fn capabilities(
    service: &NodeService,
    _rpc: &Rpc,
    _message: proto::NodeGetCapabilitiesRequest,
) -> Result<proto::NodeGetCapabilitiesResponse> {
    Ok(proto::NodeGetCapabilitiesResponse { capabilities: service.abilities.of_node() })
}

async fn info(
    service: &NodeService,
    rpc: &Rpc,
    _message: proto::NodeGetInfoRequest,
) -> Result<proto::NodeGetInfoResponse> {
    let info =
        service.run(rpc, Claim::none(), "get node info", |node, call| async move { node.info(&call).await }).await?;
    Ok(proto::NodeGetInfoResponse {
        node_id: info.id.into(),
        max_volumes_per_node: info.limit.map_or(0, |limit| limit.get().into()),
        accessible_topology: (!info.topology.is_empty()).then(|| response::topology(info.topology)),
    })
}
