//! Who takes part: the controller, two nodes, and the orchestrator that calls them.

use fuxi_csi::csi::proto;
use hyper_util::rt::TokioIo;
use proto::controller_client::ControllerClient;
use proto::node_client::NodeClient;
use proto::volume_capability::access_mode::Mode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// One gibibyte.
pub(crate) const GIB: i64 = 1 << 30;

/// Longer than an orchestrator's, since guests are slow.
const DEADLINE: Duration = Duration::from_secs(90);

/// By what a share is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Cephfs,
    Nfs,
}

impl Protocol {
    fn parameters(self) -> BTreeMap<String, String> {
        let (share_type, protocol) = match self {
            Self::Cephfs => ("cephfs", "CEPHFS"),
            Self::Nfs => ("cephnfs", "NFS"),
        };
        [("type", share_type), ("protocol", protocol)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }
}

/// What a publication says to the node.
pub(crate) type Context = BTreeMap<String, String>;

/// All of them.
pub(crate) struct World {
    facts: Value,
    controller: ControllerClient<Channel>,
    pub(crate) nodes: Vec<Node>,
}

/// A guest with a node plug-in.
pub(crate) struct Node {
    guest: String,
    program: String,
    pub(crate) id: String,
    pub(crate) log: String,
    client: NodeClient<Channel>,
}

/// A share and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) id: String,
    context: BTreeMap<String, String>,
    name: String,
}

impl Share {
    pub(crate) fn staging(&self) -> String {
        format!("/var/lib/csi/{}/staged", self.name)
    }

    /// Where this workload has it.
    pub(crate) fn target(&self, pod: &str) -> String {
        format!("/var/lib/csi/{}/pods/{pod}", self.name)
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("tests/guest/manila says no {key}: {value}"))
}

fn capability(mode: Mode) -> proto::VolumeCapability {
    use proto::volume_capability::{AccessMode, AccessType, MountVolume};
    proto::VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn many(read_only: bool) -> proto::VolumeCapability {
    capability(if read_only { Mode::MultiNodeReaderOnly } else { Mode::MultiNodeMultiWriter })
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

impl World {
    /// The one that `tests/guest/manila` has made.
    pub(crate) async fn get() -> Self {
        let path = std::env::var("FUXI_SHARES").expect("run by tests/guest/manila, which says where everything is");
        let facts: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let socket = text(&facts, "controller").to_owned();
        let channel =
            Endpoint::from_static("http://csi").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            }));
        let mut nodes = Vec::new();
        for node in facts["nodes"].as_array().unwrap() {
            let endpoint = Endpoint::from_shared(format!("http://{}", text(node, "endpoint"))).unwrap();
            let mut client = NodeClient::new(endpoint.connect_lazy());
            let info = client.node_get_info(request(proto::NodeGetInfoRequest {})).await.unwrap().into_inner();
            nodes.push(Node {
                guest: text(node, "guest").to_owned(),
                program: text(&facts, "program").to_owned(),
                id: info.node_id,
                log: text(node, "log").to_owned(),
                client,
            });
        }
        Self { controller: ControllerClient::new(channel), nodes, facts }
    }

    /// Something that `tests/guest/manila` says.
    pub(crate) fn fact(&self, key: &str) -> &str {
        text(&self.facts, key)
    }

    /// The volume that somebody has written by hand for a share: any handle, and the share in its context.
    pub(crate) fn by_hand(&self, share: &Share, handle: &str) -> Share {
        let context = BTreeMap::from([("shareID".to_owned(), share.id.clone())]);
        Share { id: handle.to_owned(), context, name: format!("{}-{handle}", share.name) }
    }

    /// A new share of one gibibyte.
    pub(crate) async fn create(&self, protocol: Protocol) -> Share {
        self.create_with(protocol, &[]).await
    }

    /// The same, with more parameters.
    pub(crate) async fn create_with(&self, protocol: Protocol, more: &[(&str, &str)]) -> Share {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("pvc-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let mut parameters = protocol.parameters();
        parameters.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let message = proto::CreateVolumeRequest {
            name: name.clone(),
            capacity_range: Some(proto::CapacityRange { required_bytes: GIB, limit_bytes: 0 }),
            volume_capabilities: vec![many(false)],
            parameters,
            ..Default::default()
        };
        let made = self.controller.clone().create_volume(request(message)).await.unwrap().into_inner().volume.unwrap();
        assert_eq!(made.capacity_bytes, GIB);
        Share { id: made.volume_id, context: made.volume_context, name }
    }

    pub(crate) async fn delete(&self, share: &Share) -> Result<(), Status> {
        let message = proto::DeleteVolumeRequest { volume_id: share.id.clone(), ..Default::default() };
        self.controller.clone().delete_volume(request(message)).await.map(drop)
    }

    pub(crate) async fn expand(&self, share: &Share, size: i64) {
        let message = proto::ControllerExpandVolumeRequest {
            volume_id: share.id.clone(),
            capacity_range: Some(proto::CapacityRange { required_bytes: size, limit_bytes: 0 }),
            volume_capability: Some(many(false)),
            ..Default::default()
        };
        let grown = self.controller.clone().controller_expand_volume(request(message)).await.unwrap().into_inner();
        assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (size, false));
    }

    /// Opens the share to a node.
    pub(crate) async fn publish(&self, share: &Share, node: &Node, read_only: bool) -> Context {
        let message = proto::ControllerPublishVolumeRequest {
            volume_id: share.id.clone(),
            node_id: node.id.clone(),
            volume_capability: Some(many(read_only)),
            volume_context: share.context.clone(),
            ..Default::default()
        };
        let answer = self.controller.clone().controller_publish_volume(request(message)).await.unwrap();
        answer.into_inner().publish_context
    }

    /// Closes it to that node.
    pub(crate) async fn unpublish(&self, share: &Share, node: &Node) {
        let message = proto::ControllerUnpublishVolumeRequest {
            volume_id: share.id.clone(),
            node_id: node.id.clone(),
            ..Default::default()
        };
        self.controller.clone().controller_unpublish_volume(request(message)).await.unwrap();
    }

    /// Publishes, stages and shows it to the workload `pod`; gives what was said to the node.
    pub(crate) async fn use_on(&self, share: &Share, node: &Node, read_only: bool) -> Context {
        let context = self.publish(share, node, read_only).await;
        node.stage(share, &context, read_only).await.unwrap();
        node.show(share, "pod", read_only).await.unwrap();
        context
    }

    /// All the way back.
    pub(crate) async fn leave(&self, share: &Share, node: &Node) {
        node.hide(share, "pod").await.unwrap();
        node.unstage(share).await.unwrap();
        self.unpublish(share, node).await;
        assert_eq!(node.mounts_of(share), "", "mounts left on {}", node.guest);
    }

    /// The key of a Ceph user; none if Ceph knows no such user.
    pub(crate) fn ceph_key(&self, context: &Context) -> Option<String> {
        let user = ceph_user(context);
        let output = Command::new("ceph")
            .args(["-c", self.fact("ceph_conf"), "auth", "print-key", &format!("client.{user}")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

/// What the controller said about the export.
pub(crate) fn export(context: &Context) -> Value {
    serde_json::from_str(&context["data"]).unwrap()
}

/// The Ceph user of a publication.
pub(crate) fn ceph_user(context: &Context) -> String {
    text(&export(context), "user").to_owned()
}

impl Node {
    pub(crate) async fn stage(&self, share: &Share, context: &Context, read_only: bool) -> Result<(), Status> {
        let message = proto::NodeStageVolumeRequest {
            volume_id: share.id.clone(),
            publish_context: context.clone(),
            staging_target_path: share.staging(),
            volume_capability: Some(many(read_only)),
            volume_context: share.context.clone(),
            ..Default::default()
        };
        self.client.clone().node_stage_volume(request(message)).await.map(drop)
    }

    pub(crate) async fn unstage(&self, share: &Share) -> Result<(), Status> {
        let message =
            proto::NodeUnstageVolumeRequest { volume_id: share.id.clone(), staging_target_path: share.staging() };
        self.client.clone().node_unstage_volume(request(message)).await.map(drop)
    }

    /// Shows it to a workload.
    pub(crate) async fn show(&self, share: &Share, pod: &str, read_only: bool) -> Result<(), Status> {
        let message = proto::NodePublishVolumeRequest {
            volume_id: share.id.clone(),
            staging_target_path: share.staging(),
            target_path: share.target(pod),
            volume_capability: Some(many(read_only)),
            readonly: read_only,
            volume_context: share.context.clone(),
            ..Default::default()
        };
        self.client.clone().node_publish_volume(request(message)).await.map(drop)
    }

    pub(crate) async fn hide(&self, share: &Share, pod: &str) -> Result<(), Status> {
        let message = proto::NodeUnpublishVolumeRequest { volume_id: share.id.clone(), target_path: share.target(pod) };
        self.client.clone().node_unpublish_volume(request(message)).await.map(drop)
    }

    /// How many bytes it can hold, as the orchestrator is told.
    pub(crate) async fn size(&self, share: &Share) -> Result<i64, Status> {
        let message = proto::NodeGetVolumeStatsRequest {
            volume_id: share.id.clone(),
            volume_path: share.target("pod"),
            staging_target_path: share.staging(),
        };
        let stats = self.client.clone().node_get_volume_stats(request(message)).await?.into_inner();
        let bytes = stats.usage.iter().find(|usage| usage.unit() == proto::volume_usage::Unit::Bytes).unwrap();
        Ok(bytes.total)
    }

    /// What is wrong with it on this node.
    pub(crate) async fn health(&self, share: &Share) -> Vec<String> {
        let message = proto::NodeGetVolumeHealthRequest {
            volume_id: share.id.clone(),
            volume_publish_path: share.target("pod"),
            staging_target_path: share.staging(),
        };
        let answer = self.client.clone().node_get_volume_health(request(message)).await.unwrap().into_inner();
        let entries = answer.volume_health.map(|health| health.health_statuses).unwrap_or_default();
        entries.into_iter().map(|problem| problem.reason).collect()
    }

    /// Runs a bash script in the guest: its exit code, and what it wrote.
    pub(crate) fn try_sh(&self, script: &str) -> (i32, String) {
        let output = Command::new(&self.program)
            .args(["exec", &self.guest, &format!("set -o pipefail; exec 2>&1; {script}")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// The same for a script that must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let (code, said) = self.try_sh(script);
        assert_eq!(code, 0, "{}: {script}\n{said}", self.guest);
        said
    }

    /// The mounts of a share, as the kernel lists them.
    pub(crate) fn mounts_of(&self, share: &Share) -> String {
        self.try_sh(&format!("grep /var/lib/csi/{}/ /proc/self/mountinfo", share.name)).1
    }

    /// Mounts the export by hand, past the driver: the exit code, and what mount(8) said. It is taken away at once.
    pub(crate) fn mount_by_hand(&self, context: &Context, key: Option<&str>) -> (i32, String) {
        let export = export(context);
        let mount = match key {
            None => format!("mount -t nfs -o vers=4.2 {}:{} /mnt", text(&export, "server"), text(&export, "path")),
            Some(key) => format!(
                "mount -i -t ceph -o name={},secret={key},noshare,mds_namespace=cephfs {}:{} /mnt",
                text(&export, "user"),
                text(&export, "monitors"),
                text(&export, "path")
            ),
        };
        self.try_sh(&format!("timeout 60 {mount} && umount /mnt"))
    }
}

/// Waits until something is so; says how long it took.
pub(crate) async fn until(what: &str, most: Duration, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < most, "waited {most:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    begun.elapsed()
}
