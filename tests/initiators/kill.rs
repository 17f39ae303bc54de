//! The node plug-in is killed in every step of staging, growing and unstaging, as it logs them
//! ([`fuxi_csi::call::STEPS`]): in the first step of each, with the next volume in the second, and so on until they are
//! through without coming that far. Each time it is started again and asked once more, as an orchestrator would. Then
//! everything must be as if nothing had happened.
//!
//! Every second time the programs that it had started die with it, as in a container; the other times they go on alone.

use crate::csi::{Node, connect, timed};
use crate::machine::{names, only_in_the_guest, sh, wait_until};
use crate::plugin::{Plugin, SOCKET};
use crate::{iscsi, nvmeof, rbd};
use fuxi_csi::csi::proto::node_client::NodeClient;
use fuxi_csi::initiator::Initiator;
use fuxi_csi::node::connector::Link;
use fuxi_csi::seal::{Binding, seal};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// More steps than any operation has.
const FAR_TOO_MANY: u32 = 80;

/// One of the three operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Stage,
    Grow,
    Unstage,
}

const OPERATIONS: [Operation; 3] = [Operation::Stage, Operation::Grow, Operation::Unstage];

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

    /// Asks once.
    async fn ask(&self, operation: Operation, context: &BTreeMap<String, String>) -> Result<(), Status> {
        let mut rpcs = NodeClient::new(connect(SOCKET).await);
        let volume = &self.volume;
        match operation {
            Operation::Stage => rpcs.node_stage_volume(timed(Node::stage_request(volume, context))).await.map(drop),
            Operation::Grow => {
                let size = 2 * self.size;
                let answer = rpcs.node_expand_volume(timed(Node::expand_request(volume, size))).await?;
                assert!(answer.into_inner().capacity_bytes >= i64::try_from(size).unwrap());
                Ok(())
            }
            Operation::Unstage => rpcs.node_unstage_volume(timed(Node::unstage_request(volume))).await.map(drop),
        }
    }

    /// Asks as an orchestrator does, until it is done.
    async fn complete(&self, operation: Operation, context: &BTreeMap<String, String>) {
        let end = Instant::now() + Duration::from_secs(120);
        while let Err(status) = self.ask(operation, context).await {
            let is_passing = matches!(status.code(), Code::Aborted | Code::Unavailable | Code::DeadlineExceeded);
            println!("   {operation:?}: {:?} {}", status.code(), status.message());
            assert!(
                is_passing && Instant::now() < end,
                "{operation:?} is refused for good: {status:?}\n{}",
                sh("tail -n 40 /tmp/node.log")
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills the plug-in in this step of an operation; gives the one that takes its place, and the step. None if the operation
    /// is through before.
    async fn kill_in(
        &self,
        plugin: Plugin,
        step: u32,
        delay: Duration,
        operation: Operation,
        context: &BTreeMap<String, String>,
    ) -> (Plugin, Option<String>) {
        plugin.kill_in_step(step, delay);
        let answer = self.ask(operation, context).await;
        let Some(killed_in) = plugin.was_killed_in() else {
            assert!(answer.is_ok(), "{operation:?}: {answer:?}");
            return (plugin, None);
        };
        plugin.bury(step.is_multiple_of(2));
        let plugin = Plugin::start();
        self.complete(operation, context).await;
        (plugin, Some(killed_in))
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

/// Stages, grows and unstages one volume after the other, with a kill in each of the three, until every step had its kill;
/// `FUXI_KILLS` times, from the second time on at some moment of the step.
async fn sweep(storage: &Storage) {
    only_in_the_guest();
    let times = std::env::var("FUXI_KILLS").map_or(1, |text| text.parse().unwrap());
    let mut plugin = Plugin::start();
    let mut number = 0;
    for time in 0..times {
        let mut steps: BTreeMap<Operation, Vec<String>> = BTreeMap::new();
        let mut through: Vec<Operation> = Vec::new();
        for step in 1.. {
            assert!(step <= FAR_TOO_MANY, "{steps:?}");
            let delay = Duration::from_millis(if time == 0 { 0 } else { fastrand::u64(..300) });
            let link = (storage.make)(number);
            let volume = format!("5a1c7b52-0d0f-4a57-9f34-{number:012}");
            let size = link.connection.size.unwrap().get();
            let trial = Trial { volume, link, size };
            std::fs::create_dir_all(Node::staged(&trial.volume)).unwrap();
            let context = trial.context().await;
            for operation in OPERATIONS {
                if operation == Operation::Grow {
                    (storage.grow)(number);
                }
                if through.contains(&operation) {
                    trial.complete(operation, &context).await;
                } else {
                    let (next, killed_in) = trial.kill_in(plugin, step, delay, operation, &context).await;
                    plugin = next;
                    println!("{operation:?}, step {step}: {}", killed_in.as_deref().unwrap_or("there is none"));
                    match killed_in {
                        Some(step) => steps.entry(operation).or_default().push(step),
                        None => through.push(operation),
                    }
                }
                look_at(&trial, number, operation);
            }
            let records = || names(&format!("{}/volumes", crate::plugin::DIRECTORY), "");
            let nothing = || (storage.left)().is_empty() && records().is_empty();
            // A program that outlived the plug-in may not be through yet.
            wait_until(&format!("nothing is left: {:?} {:?}", (storage.left)(), records()), nothing);
            let look =
                format!("fsck.ext4 -f -n $device; mount -o ro $device /mnt; grep -x {number} /mnt/number; umount /mnt");
            (storage.look_and_remove)(number, &look);
            number += 1;
            if through.len() == OPERATIONS.len() {
                break;
            }
        }
        let counts: Vec<_> = steps.iter().map(|(operation, steps)| format!("{operation:?} {}", steps.len())).collect();
        println!("killed in every step: {}", counts.join(", "));
        let has = |operation, words: &str| steps[&operation].iter().any(|step| step.contains(words));
        // Those that every kind of volume has, whatever the log calls the others.
        for words in ["write record", "mkfs.ext4", "mount "] {
            assert!(has(Operation::Stage, words), "{words} is no step of staging: {steps:?}");
        }
        assert!(has(Operation::Grow, "resize2fs"), "{steps:?}");
        assert!(has(Operation::Unstage, "unmount ") && has(Operation::Unstage, "remove record"), "{steps:?}");
    }
    plugin.kill(true);
}

/// What has to be so after an operation, however often it was begun.
fn look_at(trial: &Trial, number: u32, operation: Operation) {
    let staged = Node::staged(&trial.volume);
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let count = mounts.lines().filter(|line| line.split(' ').nth(1) == Some(staged.as_str())).count();
    let file = format!("{staged}/number");
    match operation {
        Operation::Stage => {
            assert_eq!(count, 1, "mounted once");
            std::fs::write(&file, format!("{number}\n")).unwrap();
            std::fs::File::open(&file).unwrap().sync_all().unwrap();
        }
        Operation::Grow => {
            let size = nix::sys::statvfs::statvfs(staged.as_str()).unwrap();
            assert!(size.blocks() * size.fragment_size() > trial.size * 3 / 2, "{size:?}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{number}\n"));
        }
        Operation::Unstage => assert!(!mounts.contains("/run/staged"), "{mounts}"),
    }
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn over_iscsi_nothing_is_left_and_nothing_harmed() {
    iscsi::target("iscsi");
    sweep(&Storage {
        make: |number| iscsi::single(lun(number)),
        grow: grow_disk,
        look_and_remove: remove_lun,
        left: iscsi::left,
    })
    .await;
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn of_two_paths_over_iscsi_nothing_is_left_and_nothing_harmed() {
    iscsi::target("multipath");
    sweep(&Storage {
        make: |number| iscsi::plural(lun(number)),
        grow: grow_disk,
        look_and_remove: remove_lun,
        left: iscsi::left,
    })
    .await;
}

/// A LUN of that number with a disk of its own.
fn lun(number: u32) -> u32 {
    iscsi::lun(number, &format!("killed-{number}"));
    number
}

fn grow_disk(number: u32) {
    sh(&format!("grow_disk killed-{number} 128M"));
}

fn remove_lun(number: u32, look: &str) {
    let iqn = iscsi::IQN;
    sh(&format!(
        "iscsi_lun_remove {iqn} {number}; rmdir $lio/core/iblock_0/killed-{number}; device=$(device_of killed-{number}); \
         {look}; remove_disk killed-{number}"
    ));
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn of_two_paths_over_nvme_nothing_is_left_and_nothing_harmed() {
    nvmeof::two_ports();
    sweep(&Storage {
        make: |number| nvmeof::link_to(&nvmeof::namespace(number + 1, &format!("killed-{number}"))),
        grow: grow_disk,
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

/// An image for each volume: rbd(8) takes seconds here, and it need not remove what goes with its Ceph.
fn image(number: u32) -> String {
    format!("volumes/{}-{number}", rbd::name())
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn of_an_rbd_image_nothing_is_left_and_nothing_harmed() {
    sweep(&Storage {
        make: |number| {
            rbd::rbd(&format!("create --size 64M {}", image(number)));
            let mut link = rbd::the_link();
            link.connection.data["name"] = json!(image(number));
            link
        },
        grow: |number| drop(rbd::rbd(&format!("resize --no-progress --size 128M {}", image(number)))),
        look_and_remove: |number, look| {
            let (monitor, key) = (rbd::environment("CEPH_MONITOR_V1"), rbd::environment("CEPH_KEY"));
            let image = image(number).replace('/', " ");
            sh(&format!(
                "echo '{monitor} name=cinder,secret={key},ro {image} -' >/sys/bus/rbd/add_single_major; \
                 number=$(ls /sys/bus/rbd/devices); device=/dev/rbd$number; {look}; \
                 unmap() {{ echo $number >/sys/bus/rbd/remove_single_major; }}; wait_for 30 unmap"
            ));
        },
        left: rbd::mapped,
    })
    .await;
}
