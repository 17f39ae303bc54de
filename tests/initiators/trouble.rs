//! What may be wrong on a node, asked of the whole node service or of a connector: each is said clearly, and leaves nothing.
//! What may be wrong with a target is beside each connector's tests.

use crate::csi::{Node, timed};
use crate::kill::Trial;
use crate::machine::{MIB, attach, link, names, only_in_the_guest, sh};
use crate::plugin::{Plugin, SOCKET};
use crate::{iscsi, nvmeof};
use fuxi_csi::error::Kind;
use fuxi_csi::exec::SystemExec;
use fuxi_csi::node::connector::iscsi::Iscsi;
use fuxi_csi::node::connector::nvmeof::NvmeOverFabrics;
use fuxi_csi::node::connector::rbd::Rbd;
use fuxi_csi::node::device::Host;
use serde_json::json;
use std::sync::Arc;
use tonic::{Code, Status};

const VOLUME: &str = "5a1c7b52-0d0f-4a57-9f34-3c1f1b4ad0aa";

/// A node on which no program is installed.
fn no_programs() -> Arc<SystemExec> {
    Arc::new(SystemExec::new(["/nowhere"]))
}

/// Stages what must be refused; afterwards there is nothing of it.
async fn refused(node: &Node, trial: &Trial) -> Status {
    sh(&format!("mkdir -p {}", Node::staged(VOLUME)));
    let context = trial.context().await;
    let mut rpcs = node.rpcs.clone();
    let answer = rpcs.node_stage_volume(timed(Node::stage_request(VOLUME, &context))).await;
    assert_eq!(iscsi::left(), Vec::<String>::new());
    assert_eq!(names("/var/lib/fuxi/volumes", ""), Vec::<String>::new());
    assert_eq!(sh("grep -c /run/staged /proc/mounts || true"), "0");
    answer.unwrap_err()
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_foreign_file_system_and_an_unknown_connection_are_refused_and_leave_nothing() {
    only_in_the_guest();
    iscsi::target("iscsi");
    let plugin = Plugin::start();
    let node = Node::at(SOCKET).await;
    let trial = |link| Trial { volume: VOLUME.to_owned(), link, size: 64 * MIB };

    let status = refused(&node, &trial(link("quobyte", json!({"volume": "v"}), 64 * MIB))).await;
    assert!(matches!(status.code(), Code::Unimplemented | Code::FailedPrecondition), "{status:?}");
    assert!(status.message().contains("quobyte"), "{}", status.message());

    // ext4 is asked for, and something else is there.
    for (number, disk, make, kept) in [
        (1, "xfs", "mkfs.xfs -q -f $device", "blkid -p -s TYPE -o value $device | grep -x xfs"),
        (
            2,
            "physical-volume",
            "pvcreate -q $device >/dev/null 2>&1",
            "blkid -p -s TYPE -o value $device | grep -x LVM2_member",
        ),
        (
            3,
            "data",
            "head -c 1M /dev/urandom | dd of=$device bs=1M seek=20 conv=notrunc status=none",
            "! cmp -s -n 1048576 -i 20971520:0 $device /dev/zero",
        ),
    ] {
        let size = if disk == "xfs" { "512M" } else { "64M" };
        sh(&format!("device=$(disk {disk} {size}); {make}; sync"));
        iscsi::lun(number, disk);
        let sum = || sh(&format!("md5sum </tmp/disks/{disk}"));
        let before = sum();
        let status = refused(&node, &trial(iscsi::single(number))).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{disk}: {status:?}");
        sh(&format!(
            "iscsi_lun_remove {} {number}; rmdir $lio/core/iblock_0/{disk}; device=$(device_of {disk}); {kept}",
            iscsi::IQN
        ));
        assert_eq!(sum(), before, "not a byte of it was changed");
    }
    plugin.kill(true);
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_missing_program_or_module_is_named() {
    only_in_the_guest();
    iscsi::target("iscsi");
    iscsi::lun(1, "a");
    let error = attach(&Iscsi::new(Host::default(), no_programs()), &iscsi::single(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("iscsiadm"), "{error}");
    let error = attach(&Iscsi::new(Host::default(), no_programs()), &iscsi::plural(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("multipathd") || error.to_string().contains("iscsiadm"), "{error}");
    assert_eq!(iscsi::left(), Vec::<String>::new());

    // Without modprobe, as in a small image, and where the host has not loaded it either.
    sh("modprobe -r nvme_tcp nvme_fabrics; modprobe -r rbd");
    let uuid = "00000000-1111-4222-8333-444444444444";
    let nvme = NvmeOverFabrics::new(Host::default(), no_programs());
    let error = attach(&nvme, &nvmeof::link_to(uuid)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("nvme-tcp"), "{error}");
    let mut image = link(
        "rbd",
        json!({"name": "volumes/volume-1", "hosts": ["127.0.0.1"], "ports": ["6789"], "auth_enabled": true,
            "auth_username": "cinder", "cluster_name": "ceph", "secret_type": "ceph"}),
        64 * MIB,
    );
    image.secrets.insert("keyring".to_owned(), "AQAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAAAAA==".into());
    let error = attach(&Rbd::new(Host::default(), no_programs()), &image).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("rbd"), "{error}");
    // With modprobe the same is found by itself.
    let nvme = NvmeOverFabrics::new(Host::default(), Arc::new(SystemExec::default()));
    let error = attach(&nvme, &nvmeof::link_to(uuid)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "the module is there now, no target is: {error}");
}
