//! NVMe over TCP: the kernel's initiator, the kernel's target.

use crate::machine::write_and_verify;
use crate::machine::{
    MIB, attach, call, cycles, device, link, located, names, only_in_the_guest, read, sh, try_sh, wait_until,
};
use fuxi_csi::error::Kind;
use fuxi_csi::exec::SystemExec;
use fuxi_csi::model::Bytes;
use fuxi_csi::node::connector::nvmeof::NvmeOverFabrics;
use fuxi_csi::node::connector::{Connector, Link};
use fuxi_csi::node::device::Host;
use serde_json::json;
use std::sync::Arc;

pub(crate) const NQN: &str = "nqn.2026-01.test:volumes";

fn connector() -> NvmeOverFabrics {
    only_in_the_guest();
    NvmeOverFabrics::new(Host::default(), Arc::new(SystemExec::default()))
}

/// A target with two ports.
pub(crate) fn two_ports() {
    sh(&format!("address 10.9.0.1; address 10.9.0.2; nvme_subsystem {NQN} 10.9.0.1:4420 10.9.0.2:4420"));
}

/// A disk of 64 MiB as a namespace; returns its UUID.
pub(crate) fn namespace(number: u32, disk: &str) -> String {
    sh(&format!("disk {disk} 64M >/dev/null; nvme_namespace {NQN} {number} {disk}"))
}

pub(crate) fn link_to(uuid: &str) -> Link {
    let portals = json!([["10.9.0.1", 4420, "tcp"], ["10.9.0.2", "4420", "NVMe/TCP"]]);
    link("nvmeof", json!({"target_nqn": NQN, "vol_uuid": uuid, "portals": portals}), 64 * MIB)
}

pub(crate) fn controllers() -> Vec<String> {
    names("/sys/class/nvme", "nvme")
}

pub(crate) fn disks() -> Vec<String> {
    names("/sys/class/block", "nvme")
}

/// How many controllers have their target.
fn live() -> usize {
    controllers().iter().filter(|name| sh(&format!("cat /sys/class/nvme/{name}/state")) == "live").count()
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_is_attached_written_and_detached_over_two_ports() {
    let connector = connector();
    two_ports();
    let uuid = namespace(1, "a");
    let mut link = link_to(&uuid.to_uppercase());

    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!((disk.size, live()), (Bytes::new(64 * MIB), 2));
    assert_eq!(disk.wwid.as_deref(), Some(format!("uuid.{uuid}").as_str()));
    assert_eq!(attach(&connector, &link).await.unwrap(), disk, "again changes nothing");
    assert_eq!(live(), 2);
    link.device = Some(disk.clone());
    assert_eq!(located(&self::connector(), &link).await, Some(disk.clone()), "another process finds it");

    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt; echo kept >/mnt/file", disk.path.display()));
    let error = connector.disconnect(&call(), &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    sh("umount /mnt");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!((controllers(), disks()), (vec![], vec![]));
    assert_eq!(located(&connector, &link).await, None);
    connector.disconnect(&call(), &link).await.unwrap();

    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mount {} /mnt; grep -x kept /mnt/file; umount /mnt", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(controllers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_lost_and_regained_port_costs_no_data_and_a_dead_one_does_not_hinder_an_attach() {
    let connector = connector();
    two_ports();
    let link = link_to(&namespace(1, "a"));
    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt", disk.path.display()));
    sh("path_down 10.9.0.1; head -c 8M /dev/urandom >/mnt/data; sync -f /mnt; md5sum /mnt/data >/tmp/sum");
    wait_until("the loss of the path is noticed", || live() == 1);
    sh("path_up 10.9.0.1");
    wait_until("the path is back", || live() == 2);
    sh("umount /mnt; mount /dev/nvme0n1 /mnt || mount /dev/nvme*n1 /mnt; md5sum --status -c /tmp/sum; umount /mnt");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(controllers(), Vec::<String>::new());

    sh("path_down 10.9.0.1");
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!(live(), 1);
    sh(&format!("mount {} /mnt; md5sum --status -c /tmp/sum; umount /mnt", disk.path.display()));
    sh("path_up 10.9.0.1");
    attach(&connector, &link).await.unwrap();
    assert_eq!(live(), 2, "an attach adds the path that is back");
    connector.disconnect(&call(), &link).await.unwrap();
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_grows_while_it_is_mounted() {
    let connector = connector();
    two_ports();
    let link = link_to(&namespace(1, "a"));
    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt; grow_disk a 128M", disk.path.display()));
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!(grown.size, Bytes::new(128 * MIB));
    sh(&format!("resize2fs {0} 2>&1; umount /mnt; fsck.ext4 -f -n {0}", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn ports_of_ipv4_and_ipv6_are_two_paths_to_one_volume() {
    let connector = connector();
    sh(&format!("address 10.9.0.1; address fd00:9::1; nvme_subsystem {NQN} 10.9.0.1:4420 [fd00:9::1]:4420"));
    let mut link = link_to(&namespace(1, "a"));
    link.connection.data["portals"] = json!([["10.9.0.1", 4420, "tcp"], ["FD00:9:0:0::1", 4420, "tcp"]]);
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!(live(), 2);
    link.device = Some(disk.clone());
    assert_eq!(attach(&connector, &link).await.unwrap(), disk, "again changes nothing");
    assert_eq!(live(), 2);
    write_and_verify(&disk, "over both");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!((controllers(), disks()), (vec![], vec![]));

    link.connection.data["portals"] = json!([["[fd00:9::1]", "4420", "tcp"]]);
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!((live(), read(&disk)), (1, "over both".to_owned()));
    sh("grow_disk a 128M");
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!((grown.size, read(&grown)), (Bytes::new(128 * MIB), "over both".to_owned()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!((controllers(), disks()), (vec![], vec![]));
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn volumes_of_one_subsystem_come_and_go_without_disturbing_each_other() {
    let connector = connector();
    two_ports();
    let (a, b) = (link_to(&namespace(1, "a")), link_to(&namespace(2, "b")));
    let (disk_a, disk_b) = tokio::join!(attach(&connector, &a), attach(&connector, &b));
    let (disk_a, disk_b) = (disk_a.unwrap(), disk_b.unwrap());
    assert_ne!(disk_a.name, disk_b.name);
    assert_eq!(live(), 2, "one set of paths for both");
    write_and_verify(&disk_a, "volume a");
    write_and_verify(&disk_b, "volume b");

    connector.disconnect(&call(), &a).await.unwrap();
    assert_eq!(live(), 2, "the other one is in use");
    assert_eq!(read(&disk_b), "volume b");
    sh(&format!("nvme_namespace_remove {NQN} 1"));
    wait_until("the namespace is gone", || !disks().contains(&disk_a.name));

    // Mapped while connected: the connector has to look again. And given back in the wrong order.
    sh(&format!("nvme_namespace {NQN} 3 a"));
    let disk_a = attach(&connector, &a).await.unwrap();
    assert_eq!(read(&disk_a), "volume a");
    connector.disconnect(&call(), &a).await.unwrap();
    connector.disconnect(&call(), &b).await.unwrap();
    assert_eq!(controllers(), Vec::<String>::new(), "nothing keeps the paths, mapped or not");
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn what_goes_wrong_is_said_and_leaves_nothing() {
    let connector = connector();
    two_ports();
    let uuid = namespace(1, "a");

    let other = "00000000-1111-4222-8333-444444444444";
    let error = attach(&connector, &link_to(other)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&uuid), "it names what is there instead: {error}");
    assert_eq!(controllers(), Vec::<String>::new());

    let mut promised_more = link_to(&uuid);
    promised_more.connection.size = Some(Bytes::new(65 * MIB));
    let error = attach(&connector, &promised_more).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_eq!(controllers(), Vec::<String>::new());

    let mut link = link_to(&uuid);
    link.connection.data["target_nqn"] = json!("nqn.2026-01.test:nobody");
    let error = attach(&connector, &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("nobody"), "{error}");

    sh("path_down 10.9.0.1; path_down 10.9.0.2");
    let error = attach(&connector, &link_to(&uuid)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("10.9.0.1:4420"), "{error}");
    assert_eq!(controllers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_target_that_is_gone_for_good_is_cleaned_up() {
    let connector = connector();
    two_ports();
    let link = link_to(&namespace(1, "a"));
    attach(&connector, &link).await.unwrap();
    sh("path_down 10.9.0.1; path_down 10.9.0.2");
    wait_until("the loss is noticed", || live() == 0);
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!((controllers(), disks()), (vec![], vec![]));
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_number_that_another_volume_got_is_never_taken_for_the_volume() {
    let connector = connector();
    two_ports();
    namespace(1, "keeps-the-paths");
    let keeper = {
        let uuid = sh("uuid_of keeps-the-paths");
        link_to(&uuid)
    };
    attach(&connector, &keeper).await.unwrap();
    sh("disk a 64M; disk b 64M");
    let mut wrong = 0;
    for round in 0..30 {
        let disk = if fastrand::bool() { "a" } else { "b" };
        sh(&format!("nvme_namespace {NQN} 7 {disk}"));
        let data =
            json!({"nqn": NQN, "target_portal": "10.9.0.1", "target_port": 4420, "transport_type": "tcp", "ns_id": 7});
        let mut link = link("nvmeof", data, 64 * MIB);
        let found = attach(&connector, &link).await.unwrap();
        wrong += usize::from(found.wwid != Some(format!("uuid.{}", sh(&format!("uuid_of {disk}")))));
        if read(&found).is_empty() || read(&found).starts_with('\0') {
            write_and_verify(&found, disk);
        }
        assert_eq!(read(&found), disk, "round {round}");
        link.device = Some(found);
        connector.disconnect(&call(), &link).await.unwrap();
        let other = if disk == "a" { "b" } else { "a" };
        sh(&format!("nvme_namespace_remove {NQN} 7; nvme_namespace {NQN} 7 {other}"));
        // The record still says which volume it was.
        let repeated = attach(&connector, &link).await;
        wrong += usize::from(repeated.is_ok());
        assert_eq!(repeated.unwrap_err().kind(), Kind::WrongState, "round {round}");
        sh(&format!("nvme_namespace_remove {NQN} 7"));
    }
    assert_eq!(wrong, 0);
    connector.disconnect(&call(), &keeper).await.unwrap();
    assert_eq!(controllers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn many_cycles_leave_nothing() {
    let connector = connector();
    two_ports();
    let link = link_to(&namespace(1, "a"));
    for round in 0..cycles() {
        let disk = attach(&connector, &link).await.unwrap();
        if round > 0 {
            assert_eq!(read(&disk), format!("round {}", round - 1));
        }
        write_and_verify(&disk, &format!("round {round}"));
        connector.disconnect(&call(), &link).await.unwrap();
        assert_eq!((controllers(), disks()), (vec![], vec![]), "round {round}");
    }
    let (code, _) = try_sh(&format!("nvme_subsystem_remove {NQN}; remove_disk a"));
    assert_eq!(code, Some(0), "the target is free");
}
