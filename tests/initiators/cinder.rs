//! Volumes of a real Cinder on nodes that it does not know: the driver's node processes run in two guests, its
//! controller outside, and here is the orchestrator, outside as well. Run by `tests/guest/cinder`.

use crate::csi::{Context, Node, controller, ext4, gib, persist, timed};
use fuxi_csi::csi::proto::controller_client::ControllerClient;
use fuxi_csi::csi::proto::volume_content_source::{SnapshotSource, Type as Source};
use fuxi_csi::csi::proto::{
    ControllerExpandVolumeRequest, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest,
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest, VolumeContentSource,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use tonic::Code;
use tonic::transport::Channel;

const GIB: u64 = 1 << 30;

/// How many volumes are attached at once.
const CROWD: u64 = 20;

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: tests/guest/cinder does"))
}

/// Everything that an attachment makes in a guest: sessions, mappings, disks, records of theirs and of ours, mounts.
const LEFT: &str = "ls -d /sys/class/iscsi_session/* /sys/bus/rbd/devices/* /sys/class/block/sd* /sys/class/block/rbd* \
                    /etc/iscsi/nodes/* /var/lib/fuxi/volumes/* 2>/dev/null || true; grep /run/ /proc/mounts | grep -E 'staged|published' || true";

/// A node in a guest.
struct Machine {
    guest: String,
    node: Node,
}

impl Machine {
    async fn new(letter: &str) -> Self {
        let guest = environment(&format!("FUXI_GUEST_{letter}"));
        Self { guest, node: Node::at(&environment(&format!("FUXI_NODE_{letter}"))).await }
    }

    /// Runs a bash script in the guest; returns what it wrote.
    fn run(&self, script: &str) -> String {
        let (is_good, said) = self.try_run(script);
        assert!(is_good, "{}: {script}\n{said}", self.guest);
        said
    }

    fn try_run(&self, script: &str) -> (bool, String) {
        let output = Command::new(environment("FUXI_GUEST_PROGRAM"))
            .args(["exec", &self.guest, &format!("set -e -o pipefail; {script}")])
            .output()
            .unwrap();
        let said = [output.stdout, if output.status.success() { Vec::new() } else { output.stderr }].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    async fn attach(&self, volume: &str, context: &Context) {
        self.run(&format!("mkdir -p {} /run/published", Node::staged(volume)));
        self.node.stage(volume, context).await;
        self.node.publish(volume, context).await;
    }

    async fn detach(&self, volume: &str) {
        self.node.unpublish(volume).await;
        self.node.unstage(volume).await;
        assert_eq!(self.run(LEFT), "", "{} keeps something", self.guest);
    }

    /// Writes random data onto the volume, past all caches; returns their checksum.
    fn write(&self, volume: &str) -> String {
        let file = format!("{}/data", Node::published(volume));
        self.run(&format!("head -c 4M /dev/urandom >{file}; sync -f {file}; md5sum <{file}"))
    }

    /// The checksum of what is on the volume.
    fn read(&self, volume: &str) -> String {
        self.run(&format!("sync; echo 3 >/proc/sys/vm/drop_caches; md5sum <{}/data", Node::published(volume)))
    }
}

/// The controller.
struct Cloud {
    rpcs: ControllerClient<Channel>,
    /// Of volumes: Cinder's type.
    kind: String,
}

impl Cloud {
    async fn with(kind: &str) -> Self {
        Self { rpcs: controller(&format!("unix://{}", environment("FUXI_CONTROLLER"))).await, kind: kind.to_owned() }
    }

    async fn create(&self, name: &str, snapshot: Option<&str>) -> String {
        let from = |snapshot: &str| VolumeContentSource {
            r#type: Some(Source::Snapshot(SnapshotSource { snapshot_id: snapshot.to_owned() })),
        };
        let message = CreateVolumeRequest {
            name: format!("{name}-{}", environment("FUXI_RUN")),
            capacity_range: gib(1),
            volume_capabilities: vec![ext4()],
            parameters: [("type".to_owned(), self.kind.clone())].into(),
            volume_content_source: snapshot.map(from),
            ..Default::default()
        };
        let created = persist("create", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.create_volume(timed(message)).await }
        })
        .await;
        created.volume.unwrap().volume_id
    }

    fn publish_request(volume: &str, node: &Node) -> ControllerPublishVolumeRequest {
        ControllerPublishVolumeRequest {
            volume_id: volume.to_owned(),
            node_id: node.id.clone(),
            volume_capability: Some(ext4()),
            ..Default::default()
        }
    }

    async fn publish(&self, volume: &str, node: &Node) -> Context {
        persist("controller publish", || {
            let mut rpcs = self.rpcs.clone();
            async move { rpcs.controller_publish_volume(timed(Self::publish_request(volume, node))).await }
        })
        .await
        .publish_context
    }

    async fn unpublish(&self, volume: &str, node: &Node) {
        let message = ControllerUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            node_id: node.id.clone(),
            ..Default::default()
        };
        persist("controller unpublish", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.controller_unpublish_volume(timed(message)).await }
        })
        .await;
    }

    async fn expand(&self, volume: &str, gibibytes: i64) -> bool {
        let message = ControllerExpandVolumeRequest {
            volume_id: volume.to_owned(),
            capacity_range: gib(gibibytes),
            volume_capability: Some(ext4()),
            ..Default::default()
        };
        persist("controller expand", || {
            let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
            async move { rpcs.controller_expand_volume(timed(message)).await }
        })
        .await
        .node_expansion_required
    }

    async fn snapshot(&self, name: &str, volume: &str) -> String {
        let message = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: format!("{name}-{}", environment("FUXI_RUN")),
            ..Default::default()
        };
        loop {
            let snapshot = persist("snapshot", || {
                let (mut rpcs, message) = (self.rpcs.clone(), message.clone());
                async move { rpcs.create_snapshot(timed(message)).await }
            })
            .await
            .snapshot
            .unwrap();
            if snapshot.ready_to_use {
                return snapshot.snapshot_id;
            }
        }
    }

    async fn delete_snapshot(&self, snapshot: &str) {
        persist("delete the snapshot", || {
            let mut rpcs = self.rpcs.clone();
            let message = DeleteSnapshotRequest { snapshot_id: snapshot.to_owned(), ..Default::default() };
            async move { rpcs.delete_snapshot(timed(message)).await }
        })
        .await;
    }

    async fn delete(&self, volume: &str) {
        persist("delete", || {
            let mut rpcs = self.rpcs.clone();
            let message = DeleteVolumeRequest { volume_id: volume.to_owned(), ..Default::default() };
            async move { rpcs.delete_volume(timed(message)).await }
        })
        .await;
    }
}

/// How many requests the controller has sent to Cinder.
fn requests() -> u64 {
    let mut stream = TcpStream::connect(environment("FUXI_METRICS")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("fuxi_csi_build_info"), "{text}");
    let of_cinder = text
        .lines()
        .filter(|line| line.starts_with("fuxi_csi_openstack_requests_total{") && line.contains("service=\"cinder\""));
    of_cinder.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Notes a secret: who runs this test looks for it in all logs.
fn note_secret(secret: &str) {
    assert!(secret.len() > 8, "{secret:?} is no secret");
    let path = environment("FUXI_SECRETS");
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{secret}").unwrap();
}

/// The whole life of a volume on two nodes. `secret` is what the connection needs, as it is in the first guest while the
/// volume is there.
async fn life(kind: &str, secret: impl Fn(&Machine) -> String) {
    let (cloud, a, b) = (Cloud::with(kind).await, Machine::new("A").await, Machine::new("B").await);
    let volume = cloud.create(kind, None).await;

    let context = cloud.publish(&volume, &a.node).await;
    assert_eq!(context["kind"], kind);
    let again = cloud.publish(&volume, &a.node).await;
    assert_eq!((&again["data"], &again["size"]), (&context["data"], &context["size"]), "again changes nothing");
    let mut elsewhere = cloud.rpcs.clone();
    let refused = elsewhere.controller_publish_volume(timed(Cloud::publish_request(&volume, &b.node))).await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition, "one node at a time");

    a.attach(&volume, &context).await;
    let first = a.write(&volume);
    let secret = secret(&a);
    note_secret(&secret);
    assert!(!format!("{context:?}").contains(&secret), "it is sealed");
    assert!(context["sealed"].len() > secret.len());
    let (is_known, _) = a.try_run(&format!("grep -rqF -e '{secret}' /var/lib/fuxi"));
    assert!(!is_known, "the record has it in clear");
    // Sealed to one node, of no use to the other.
    b.run(&format!("mkdir -p {}", Node::staged(&volume)));
    let mut other = b.node.rpcs.clone();
    let refused = other.node_stage_volume(timed(Node::stage_request(&volume, &context))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", refused.message());
    assert_eq!(b.run(LEFT), "");

    // While it is written to.
    let snapshot = cloud.snapshot(kind, &volume).await;
    let second = a.write(&volume);
    assert_ne!(first, second);
    assert!(cloud.expand(&volume, 2).await, "the node has to grow the file system");
    assert!(a.node.expand(&volume, 2 * GIB).await >= i64::try_from(2 * GIB).unwrap());
    let size: u64 = a.run(&format!("df -B1 --output=size {} | tail -1", Node::published(&volume))).parse().unwrap();
    assert!(size > GIB + GIB / 2, "{size}");
    assert_eq!(a.read(&volume), second);
    a.detach(&volume).await;
    cloud.unpublish(&volume, &a.node).await;
    cloud.unpublish(&volume, &a.node).await;

    // The other node sees what the first one wrote.
    let context = cloud.publish(&volume, &b.node).await;
    b.attach(&volume, &context).await;
    assert_eq!(b.read(&volume), second);

    // Its copy has what was there before, beside it.
    let copy = cloud.create(&format!("{kind}-copy"), Some(&snapshot)).await;
    let context = cloud.publish(&copy, &a.node).await;
    a.attach(&copy, &context).await;
    assert_eq!(a.read(&copy), first);
    a.detach(&copy).await;
    b.detach(&volume).await;
    cloud.unpublish(&copy, &a.node).await;
    cloud.unpublish(&volume, &b.node).await;
    cloud.delete(&copy).await;
    cloud.delete_snapshot(&snapshot).await;
    cloud.delete(&volume).await;
}

#[tokio::test]
#[ignore = "needs a cloud and two guests: tests/guest/cinder"]
async fn a_volume_of_ceph_lives_on_two_nodes() {
    life("rbd", |_| environment("CEPH_KEY")).await;
}

#[tokio::test]
#[ignore = "needs a cloud and two guests: tests/guest/cinder"]
async fn a_volume_over_iscsi_with_chap_lives_on_two_nodes() {
    // What Cinder made up; the initiator's own record has it, for root only.
    life("iscsi", |a| a.run("grep -h node.session.auth.password /etc/iscsi/nodes/*/* | head -1 | sed 's/.* = //'"))
        .await;
}

/// How many requests attaching and detaching take, of one volume and of many at once. What Cinder does is not cheaper by asking
/// it more often, so the bounds are exact.
async fn count(kind: &str) {
    let (cloud, a) = (Cloud::with(kind).await, Machine::new("A").await);
    let mut volumes = Vec::new();
    for number in 0..=CROWD {
        volumes.push(cloud.create(&format!("count-{kind}-{number}"), None).await);
    }
    let before = requests();
    cloud.publish(&volumes[0], &a.node).await;
    let attached = requests();
    cloud.unpublish(&volumes[0], &a.node).await;
    let detached = requests();
    println!("{kind}: {} requests to attach, {} to detach", attached - before, detached - attached);
    assert!(attached - before <= 2 && detached - attached <= 2);

    let crowd = &volumes[1..];
    let before = requests();
    all(crowd.iter().map(|volume| async { drop(cloud.publish(volume, &a.node).await) })).await;
    let attached = requests();
    all(crowd.iter().map(|volume| cloud.unpublish(volume, &a.node))).await;
    let detached = requests();
    println!("{kind}, {CROWD} at once: {} requests to attach, {} to detach", attached - before, detached - attached);
    assert!(attached - before <= 2 * CROWD && detached - attached <= 2 * CROWD);
    all(volumes.iter().map(|volume| cloud.delete(volume))).await;
}

/// Drives all at once.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|task| {
        futures.retain_mut(|future| future.as_mut().poll(task).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cloud and two guests: tests/guest/cinder"]
async fn attaching_and_detaching_take_two_requests_each_alone_and_in_a_crowd() {
    count("rbd").await;
    count("iscsi").await;
}
