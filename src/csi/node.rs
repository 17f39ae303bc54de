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
    let volume_path = request::existing_path("volume_path", message.volume_path)?;
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
    let volume_path = request::existing_path("volume_path", message.volume_path)?;
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

#[cfg(test)]
mod tests {
    use super::NodeService;
    use crate::csi::abilities::Abilities;
    use crate::csi::operation::Operations;
    use crate::csi::proto;
    use crate::exec::scripted::ScriptedExec;
    use crate::model::StringMap;
    use crate::node::connector::Connectors;
    use crate::node::device::Host;
    use crate::node::filesystem::Filesystems;
    use crate::node::identity::{Identity, IdentityOptions};
    use crate::node::keychain::Keychain;
    use crate::node::mount::memory::MemoryMounter;
    use crate::node::{Node, NodeParts};
    use crate::provider::memory::MemoryProvider;
    use proto::node_server::Node as _;
    use proto::volume_capability::access_mode::Mode;
    use std::fmt::Debug;
    use std::sync::Arc;
    use tonic::{Code, Request, Response, Status};

    /// The service over a machine that is never reached: every request here is refused before.
    fn service() -> NodeService {
        let parts = NodeParts {
            exec: Arc::new(ScriptedExec::default()),
            mounter: Arc::new(MemoryMounter::default()),
            connectors: Connectors::new(),
            filesystems: Filesystems::default(),
            identity: Identity::new(IdentityOptions::default(), Vec::new()),
            keychain: Keychain::none(),
            host: Host::below("/nowhere"),
            plugin_dir: "/nowhere".into(),
            default_fstype: "ext4".to_owned(),
        };
        NodeService::new(
            Arc::new(Node::new(parts).unwrap()),
            Abilities::of(&MemoryProvider::default()),
            Operations::default(),
        )
    }

    fn assert_refused<T: Debug>(answer: Result<Response<T>, Status>, code: Code, words: &str) {
        let status = answer.expect_err(words);
        assert_eq!(status.code(), code, "{words}: {status}");
        assert!(status.message().contains(words), "{words:?} is not in {:?}", status.message());
    }

    fn capability(mode: Mode) -> Option<proto::VolumeCapability> {
        Some(proto::VolumeCapability {
            access_mode: Some(proto::volume_capability::AccessMode { mode: mode.into() }),
            access_type: Some(proto::volume_capability::AccessType::Mount(
                proto::volume_capability::MountVolume::default(),
            )),
        })
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    /// Paths that no request may have, and the words that say so.
    const WRONG_PATHS: [(&str, &str); 5] = [
        ("relative/path", "is not an absolute path"),
        ("/a/../b", "has a \"..\" in it"),
        ("/a\0b", "has a NUL byte"),
        ("/", "is the root"),
        ("//", "is the root"),
    ];

    #[tokio::test]
    async fn stage_refuses_what_is_missing_or_malformed() {
        let service = service();
        let good = || proto::NodeStageVolumeRequest {
            volume_id: text("v"),
            staging_target_path: text("/staging"),
            volume_capability: capability(Mode::SingleNodeWriter),
            ..Default::default()
        };
        let context = |key: &str, value: &str| StringMap::from([(text(key), text(value))]);
        for (request, words) in [
            (proto::NodeStageVolumeRequest { volume_id: text(""), ..good() }, "volume_id is missing"),
            (proto::NodeStageVolumeRequest { volume_id: text("a\nb"), ..good() }, "volume_id"),
            (
                proto::NodeStageVolumeRequest { staging_target_path: text(""), ..good() },
                "staging_target_path is missing",
            ),
            (proto::NodeStageVolumeRequest { volume_capability: None, ..good() }, "volume_capability is missing"),
            (
                proto::NodeStageVolumeRequest { volume_capability: capability(Mode::Unknown), ..good() },
                "volume_capability.access_mode.mode is UNKNOWN",
            ),
            (
                proto::NodeStageVolumeRequest { volume_capability: capability(Mode::MultiNodeMultiWriter), ..good() },
                "several nodes",
            ),
            (proto::NodeStageVolumeRequest { publish_context: context("data", "{"), ..good() }, "publish_context"),
            (proto::NodeStageVolumeRequest { publish_context: context("size", "-1"), ..good() }, "publish_context"),
        ] {
            assert_refused(service.node_stage_volume(Request::new(request)).await, Code::InvalidArgument, words);
        }
        for (path, words) in WRONG_PATHS {
            let request = proto::NodeStageVolumeRequest { staging_target_path: text(path), ..good() };
            assert_refused(service.node_stage_volume(Request::new(request)).await, Code::InvalidArgument, words);
        }
    }

    #[tokio::test]
    async fn publish_refuses_what_is_missing_or_malformed() {
        let service = service();
        let good = || proto::NodePublishVolumeRequest {
            volume_id: text("v"),
            staging_target_path: text("/staging"),
            target_path: text("/target"),
            volume_capability: capability(Mode::SingleNodeWriter),
            ..Default::default()
        };
        for (request, code, words) in [
            (
                proto::NodePublishVolumeRequest { volume_id: text(""), ..good() },
                Code::InvalidArgument,
                "volume_id is missing",
            ),
            (
                proto::NodePublishVolumeRequest { target_path: text(""), ..good() },
                Code::InvalidArgument,
                "target_path is missing",
            ),
            (
                proto::NodePublishVolumeRequest { volume_capability: None, ..good() },
                Code::InvalidArgument,
                "volume_capability is missing",
            ),
            (
                proto::NodePublishVolumeRequest { staging_target_path: text(""), ..good() },
                Code::FailedPrecondition,
                "staging_target_path is missing",
            ),
        ] {
            assert_refused(service.node_publish_volume(Request::new(request)).await, code, words);
        }
        for (path, words) in WRONG_PATHS {
            let target = proto::NodePublishVolumeRequest { target_path: text(path), ..good() };
            assert_refused(service.node_publish_volume(Request::new(target)).await, Code::InvalidArgument, words);
            let staging = proto::NodePublishVolumeRequest { staging_target_path: text(path), ..good() };
            assert_refused(service.node_publish_volume(Request::new(staging)).await, Code::InvalidArgument, words);
        }
    }

    #[tokio::test]
    async fn the_other_methods_want_a_volume_and_a_path() {
        let service = service();
        for (volume_id, path, words) in [("", "/p", "volume_id is missing"), ("v", "", "path is missing")]
            .into_iter()
            .chain(WRONG_PATHS.into_iter().map(|(path, words)| ("v", path, words)))
        {
            let (volume_id, path) = (text(volume_id), text(path));
            let unstage =
                proto::NodeUnstageVolumeRequest { volume_id: volume_id.clone(), staging_target_path: path.clone() };
            let answer = service.node_unstage_volume(Request::new(unstage)).await;
            assert_refused(answer, Code::InvalidArgument, words);
            let unpublish =
                proto::NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path: path.clone() };
            let answer = service.node_unpublish_volume(Request::new(unpublish)).await;
            assert_refused(answer, Code::InvalidArgument, words);
            // What is only looked for is not found at such a path, which csi-sanity holds drivers to.
            let code = if path == "relative/path" { Code::NotFound } else { Code::InvalidArgument };
            let expand = proto::NodeExpandVolumeRequest {
                volume_id: volume_id.clone(),
                volume_path: path.clone(),
                ..Default::default()
            };
            let answer = service.node_expand_volume(Request::new(expand)).await;
            assert_refused(answer, code, words);
            let stats = proto::NodeGetVolumeStatsRequest { volume_id, volume_path: path, ..Default::default() };
            let answer = service.node_get_volume_stats(Request::new(stats)).await;
            assert_refused(answer, code, words);
        }
    }

    #[tokio::test]
    async fn optional_fields_may_be_absent_but_not_malformed() {
        let service = service();
        for (path, words) in WRONG_PATHS {
            let expand = proto::NodeExpandVolumeRequest {
                volume_id: text("v"),
                volume_path: text("/p"),
                staging_target_path: text(path),
                ..Default::default()
            };
            let answer = service.node_expand_volume(Request::new(expand)).await;
            assert_refused(answer, Code::InvalidArgument, words);
            let stats = proto::NodeGetVolumeStatsRequest {
                volume_id: text("v"),
                volume_path: text("/p"),
                staging_target_path: text(path),
            };
            let answer = service.node_get_volume_stats(Request::new(stats)).await;
            assert_refused(answer, Code::InvalidArgument, words);
            for (volume_publish_path, staging_target_path) in [(path, ""), ("", path)] {
                let health = proto::NodeGetVolumeHealthRequest {
                    volume_id: text("v"),
                    volume_publish_path: text(volume_publish_path),
                    staging_target_path: text(staging_target_path),
                };
                let answer = service.node_get_volume_health(Request::new(health)).await;
                assert_refused(answer, Code::InvalidArgument, words);
            }
        }
        let health = proto::NodeGetVolumeHealthRequest::default();
        let answer = service.node_get_volume_health(Request::new(health)).await;
        assert_refused(answer, Code::InvalidArgument, "volume_id is missing");
        let range = proto::NodeExpandVolumeRequest {
            volume_id: text("v"),
            volume_path: text("/p"),
            capacity_range: Some(proto::CapacityRange { required_bytes: -1, limit_bytes: 0 }),
            ..Default::default()
        };
        let answer = service.node_expand_volume(Request::new(range)).await;
        assert_refused(answer, Code::InvalidArgument, "required_bytes is -1");
    }
}
