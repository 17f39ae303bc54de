//! Figures: how long staging takes, against the same steps done by hand with the usual programs, in turns in one guest.

use crate::csi::Node;
use crate::kill::Trial;
use crate::machine::{link, only_in_the_guest, sh};
use crate::plugin::{Plugin, SOCKET};
use crate::{iscsi, nvmeof};
use fuxi_csi::node::connector::Link;
use serde_json::json;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;

/// How often each is done; the middle one counts.
const ROUNDS: u32 = 7;

/// The most that staging may take of what the steps take by hand.
const LIMIT: f64 = 1.3;

/// How a volume of the figures is made and used.
struct Steps {
    name: &'static str,
    /// Makes a blank volume of that number.
    make: fn(u32) -> Link,
    /// The script that brings it, up to a variable `device`.
    connect: fn(u32) -> String,
    /// The script that takes it away.
    disconnect: fn(u32) -> String,
    /// Removes the volume.
    remove: fn(u32),
}

/// Stages volumes by hand and by the driver in turns; the middle times, by hand first.
async fn compare(steps: &Steps) -> (Duration, Duration) {
    only_in_the_guest();
    let plugin = Plugin::start();
    let node = Node::at(SOCKET).await;
    let (mut by_hand, mut by_driver) = (Vec::new(), Vec::new());
    // The first round warms both up and does not count.
    for round in 0..=ROUNDS {
        let number = 2 * round;
        drop((steps.make)(number));
        let script = format!(
            "{}; mkfs.ext4 -q -F -m0 -E nodiscard $device; mount -t ext4 $device /mnt",
            (steps.connect)(number)
        );
        let started = Instant::now();
        sh(&script);
        by_hand.push(started.elapsed());
        sh(&format!("umount /mnt; {}", (steps.disconnect)(number)));
        (steps.remove)(number);

        let number = number + 1;
        let volume = format!("5a1c7b52-0d0f-4a57-9f34-{number:012}");
        let trial = Trial { link: (steps.make)(number), volume: volume.clone(), size: GIB };
        sh(&format!("mkdir -p {}", Node::staged(&volume)));
        let context = trial.context().await;
        let started = Instant::now();
        node.stage(&volume, &context).await;
        by_driver.push(started.elapsed());
        node.unstage(&volume).await;
        (steps.remove)(number);
    }
    plugin.kill(true);
    let middle = |mut times: Vec<Duration>| {
        times.remove(0);
        times.sort();
        times[times.len() / 2]
    };
    (middle(by_hand), middle(by_driver))
}

async fn show(steps: &Steps) {
    let (by_hand, by_driver) = compare(steps).await;
    let ratio = by_driver.as_secs_f64() / by_hand.as_secs_f64();
    let (by_hand, by_driver) = (by_hand.as_millis(), by_driver.as_millis());
    println!("figure: stage over {}: by hand {by_hand} ms, driver {by_driver} ms, ratio {ratio:.2}", steps.name);
    assert!(ratio <= LIMIT, "{ratio:.2} is more than {LIMIT}");
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn staging_over_iscsi_takes_little_more_than_by_hand() {
    iscsi::target("iscsi");
    show(&Steps {
        name: "iSCSI",
        make: |number| {
            sh(&format!("disk figure-{number} 1G >/dev/null"));
            iscsi::lun(number, &format!("figure-{number}"));
            let data = json!({"target_portal": "10.9.0.1:3260", "target_iqn": iscsi::IQN, "target_lun": number});
            link("iscsi", data, GIB)
        },
        connect: |number| format!("device=$(iscsi_login {} 10.9.0.1:3260 {number})", iscsi::IQN),
        disconnect: |_| format!("iscsi_logout {}", iscsi::IQN),
        remove: |number| drop(sh(&format!("iscsi_lun_remove {} {number}; remove_disk figure-{number}", iscsi::IQN))),
    })
    .await;
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn staging_over_nvme_takes_little_more_than_by_hand() {
    sh(&format!("address 10.9.0.1; nvme_subsystem {} 10.9.0.1:4420", nvmeof::NQN));
    show(&Steps {
        name: "NVMe/TCP",
        make: |number| {
            let (nqn, place) = (nvmeof::NQN, number + 1);
            let uuid = sh(&format!("disk figure-{number} 1G >/dev/null; nvme_namespace {nqn} {place} figure-{number}"));
            let data = json!({"target_nqn": nqn, "vol_uuid": uuid, "portals": [["10.9.0.1", 4420, "tcp"]]});
            link("nvmeof", data, GIB)
        },
        connect: |number| {
            format!(
                "nvme connect -t tcp -a 10.9.0.1 -s 4420 -n {}; device=/dev/disk/by-id/nvme-uuid.$(uuid_of figure-{number}); \
                 wait_for 30 test -b $device",
                nvmeof::NQN
            )
        },
        disconnect: |_| format!("nvme disconnect -n {} >/dev/null", nvmeof::NQN),
        remove: |number| {
            drop(sh(&format!("nvme_namespace_remove {} {}; remove_disk figure-{number}", nvmeof::NQN, number + 1)));
        },
    })
    .await;
}
