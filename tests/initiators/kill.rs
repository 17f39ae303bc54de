//! The node plug-in is killed again and again: at moments spread evenly over staging, growing and unstaging. Each time it is
//! started again and asked once more, as an orchestrator would. Then everything must be as if nothing had happened.
//!
//! Every second time the programs that it had started die with it, as in a container; the other times they go on alone.

use crate::csi::{Node, connect, timed};
use crate::machine::{names, only_in_the_guest, sh, try_sh, wait_until};
use crate::{iscsi, nvmeof, rbd};
use fuxi_csi::csi::proto::node_client::NodeClient;
use fuxi_csi::initiator::Initiator;
use fuxi_csi::node::connector::Link;
use fuxi_csi::seal::{Binding, seal};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

pub(crate) const SOCKET: &str = "unix:///run/fuxi.sock";
const PLUGIN_DIR: &str = "/var/lib/fuxi";

/// How many moments, unless `FUXI_KILLS` says otherwise.
const MOMENTS: u32 = 6;

/// The driver's process, with a session of its own.
pub(crate) struct Plugin {
    process: Child,
}

impl Plugin {
    pub(crate) fn start() -> Self {
        let log = std::fs::File::options().create(true).append(true).open("/tmp/node.log").unwrap();
        let process = Command::new("setsid")
            .args(["/share/fuxi-csi", "node", "--attach", "host", "--endpoint", SOCKET, "--plugin-dir", PLUGIN_DIR])
            .args(["--host-name", "guest", "--storage-address", "10.0.2.15", "--zone", "z"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { process }
    }

    pub(crate) fn kill(mut self, with_its_programs: bool) {
        let pid = self.process.id();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        if with_its_programs {
            let _ = try_sh(&format!("pkill -KILL -s {pid}"));
        }
    }
}

/// One of the three operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Stage,
    Grow,
    Unstage,
}

/// A volume of the sweep, and what the plug-in is asked to do with it.
pub(crate) struct Trial {
    pub(crate) volume: String,
    pub(crate) link: Link,
    pub(crate) size: u64,
}

impl Trial {
    /// As the controller gives it to the node, secrets sealed.
    pub(crate) async fn context(&self) -> BTreeMap<String, String> {
        let node = Node::at(SOCKET).await;
        let initiator = Initiator::unpack(&node.id.parse().unwrap()).unwrap();
        let mut connection = self.link.connection.clone();
        if !self.link.secrets.is_empty() {
            let id = self.volume.parse().unwrap();
            let binding = Binding { volume: &id, host: &initiator.host };
            connection.sealed = Some(seal(&initiator.public_key, binding, &self.link.secrets).unwrap());
        }
        connection.to_context().unwrap()
    }

    /// Begins an operation.
    async fn begin(&self, operation: Operation) -> JoinHandle<Result<(), Status>> {
        let mut rpcs = NodeClient::new(connect(SOCKET).await);
        let (volume, size) = (self.volume.clone(), self.size);
        let context = if operation == Operation::Stage { self.context().await } else { BTreeMap::new() };
        tokio::spawn(async move {
            match operation {
                Operation::Stage => {
                    rpcs.node_stage_volume(timed(Node::stage_request(&volume, &context))).await.map(drop)
                }
                Operation::Grow => {
                    let answer = rpcs.node_expand_volume(timed(Node::expand_request(&volume, 2 * size))).await;
                    answer
                        .map(Response::into_inner)
                        .map(|said| assert!(said.capacity_bytes >= i64::try_from(2 * size).unwrap()))
                }
                Operation::Unstage => rpcs.node_unstage_volume(timed(Node::unstage_request(&volume))).await.map(drop),
            }
        })
    }

    /// Asks as an orchestrator does, until it is done.
    async fn complete(&self, operation: Operation) {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            match self.begin(operation).await.await.unwrap() {
                Ok(()) => return,
                Err(status) => {
                    let is_passing =
                        matches!(status.code(), Code::Aborted | Code::Unavailable | Code::DeadlineExceeded);
                    println!("   {operation:?}: {:?} {}", status.code(), status.message());
                    let log = || sh("tail -n 40 /tmp/node.log");
                    assert!(
                        is_passing && Instant::now() < end,
                        "{operation:?} is refused for good: {status:?}\n{}",
                        log()
                    );
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How long an operation takes if nobody disturbs it.
    async fn measure(&self, operation: Operation) -> Duration {
        let asked = self.begin(operation).await;
        let started = Instant::now();
        asked.await.unwrap().unwrap();
        started.elapsed()
    }

    /// Kills the plug-in this long after the beginning; gives the one that takes its place. Whether it was in time.
    async fn kill_after(&self, plugin: Plugin, operation: Operation, moment: Duration, whole: bool) -> (Plugin, bool) {
        let asked = self.begin(operation).await;
        tokio::time::sleep(moment).await;
        let was_in_time = !asked.is_finished();
        plugin.kill(whole);
        // Not to be sent once more by the one who sent it.
        asked.abort();
        let plugin = Plugin::start();
        self.complete(operation).await;
        (plugin, was_in_time)
    }
}

/// What a back end of the tests does for a sweep.
struct Storage {
    /// Makes a blank volume of that number and says how it is reached.
    make: fn(u32) -> Link,
    /// Makes it twice as large.
    grow: fn(u32),
    /// Shows what is on it past the initiator: runs a script with `$device`, then removes the volume.
    look_and_remove: fn(u32, &str),
    /// Everything that is there on this node because of a volume.
    left: fn() -> Vec<String>,
}

/// Stages, grows and unstages one volume after the other, with a kill in each of the three.
async fn sweep(storage: &Storage) {
    only_in_the_guest();
    let moments = std::env::var("FUXI_KILLS").map_or(MOMENTS, |text| text.parse().unwrap());
    let mut plugin = Plugin::start();
    let mut times = [Duration::ZERO; 3];
    let mut in_time = [0; 3];
    // The first ones are left alone: one to warm up, one to be measured. No call takes as long as another, so some moments
    // come after the end; then there are more rounds, with what was learned from that.
    let enough = |in_time: &[u32; 3]| in_time.iter().all(|count| *count >= moments / 2);
    for number in 0..3 * moments + 2 {
        if number >= moments + 2 && enough(&in_time) {
            break;
        }
        let link = (storage.make)(number);
        let volume = format!("5a1c7b52-0d0f-4a57-9f34-{number:012}");
        let size = link.connection.size.unwrap().get();
        let trial = Trial { volume, link, size };
        let staged = Node::staged(&trial.volume);
        sh(&format!("mkdir -p {staged}"));
        for (at, operation) in [Operation::Stage, Operation::Grow, Operation::Unstage].into_iter().enumerate() {
            if operation == Operation::Grow {
                (storage.grow)(number);
            }
            if number < 2 {
                times[at] = trial.measure(operation).await;
            } else {
                // Somewhere in the numberth part of it.
                let moment =
                    times[at].mul_f64((f64::from((number - 2) % moments) + fastrand::f64()) / f64::from(moments));
                let (next, was_in_time) = trial.kill_after(plugin, operation, moment, number % 2 == 0).await;
                plugin = next;
                in_time[at] += u32::from(was_in_time);
                if !was_in_time {
                    times[at] = times[at].min(moment);
                }
                println!(
                    "round {number}: killed {moment:?} after the beginning of {operation:?}, in time: {was_in_time}"
                );
            }
            match operation {
                Operation::Stage => {
                    assert_eq!(sh(&format!("grep -c ' {staged} ' /proc/mounts")), "1", "mounted once");
                    sh(&format!("echo {number} >{staged}/number; sync -f {staged}"));
                }
                Operation::Grow => {
                    let grown: u64 = sh(&format!("df -B1 --output=size {staged} | tail -1")).parse().unwrap();
                    assert!(grown > trial.size * 3 / 2, "{grown}");
                    assert_eq!(sh(&format!("cat {staged}/number")), number.to_string());
                }
                Operation::Unstage => {}
            }
        }
        let records = || names(&format!("{PLUGIN_DIR}/volumes"), "");
        let nothing = || (storage.left)().is_empty() && records().is_empty();
        // A program that outlived the plug-in may not be through yet.
        wait_until(&format!("nothing is left: {:?} {:?}", (storage.left)(), records()), nothing);
        assert_eq!(sh("grep -c /run/staged /proc/mounts || true"), "0");
        let look =
            format!("fsck.ext4 -f -n $device; mount -o ro $device /mnt; grep -x {number} /mnt/number; umount /mnt");
        (storage.look_and_remove)(number, &look);
    }
    println!("they take: stage {:?}, grow {:?}, unstage {:?}", times[0], times[1], times[2]);
    println!("killed in time: {in_time:?} of {moments} each");
    assert!(enough(&in_time), "{in_time:?}");
    plugin.kill(true);
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn of_two_paths_over_iscsi_nothing_is_left_and_nothing_harmed() {
    iscsi::target("multipath");
    sweep(&Storage {
        make: |number| {
            let disk = format!("killed-{number}");
            iscsi::lun(number, &disk);
            iscsi::plural(number)
        },
        grow: |number| drop(sh(&format!("grow_disk killed-{number} 128M"))),
        look_and_remove: |number, look| {
            let iqn = iscsi::IQN;
            sh(&format!(
                "iscsi_lun_remove {iqn} {number}; rmdir $lio/core/iblock_0/killed-{number}; device=$(device_of killed-{number}); \
                 {look}; remove_disk killed-{number}"
            ));
        },
        left: iscsi::left,
    })
    .await;
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn of_two_paths_over_nvme_nothing_is_left_and_nothing_harmed() {
    nvmeof::two_ports();
    sweep(&Storage {
        make: |number| nvmeof::link_to(&nvmeof::namespace(number + 1, &format!("killed-{number}"))),
        grow: |number| drop(sh(&format!("grow_disk killed-{number} 128M"))),
        look_and_remove: |number, look| {
            let (nqn, place) = (nvmeof::NQN, number + 1);
            sh(&format!(
                "nvme_namespace_remove {nqn} {place}; device=$(device_of killed-{number}); {look}; remove_disk killed-{number}"
            ));
        },
        left: || [nvmeof::controllers(), nvmeof::disks()].concat(),
    })
    .await;
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn of_an_rbd_image_nothing_is_left_and_nothing_harmed() {
    sweep(&Storage {
        make: |_| {
            rbd::image("");
            rbd::the_link()
        },
        grow: |_| drop(rbd::rbd(&format!("resize --no-progress --size 128M volumes/{}", rbd::name()))),
        look_and_remove: |_, look| {
            let path = format!("volumes/{}", rbd::name());
            let told = format!("-m {} --id cinder --keyfile /share/ceph.key", rbd::environment("CEPH_MONITOR_V1"));
            sh(&format!("device=$(rbd {told} device map --read-only {path}); {look}; rbd {told} device unmap $device"));
        },
        left: rbd::mapped,
    })
    .await;
}
