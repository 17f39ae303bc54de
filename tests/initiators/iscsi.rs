//! iSCSI: the kernel's initiator with iscsid and multipathd, the kernel's target (LIO).

use crate::machine::write_and_verify;
use crate::machine::{
    MIB, attach, call, cycles, device, link, located, names, only_in_the_guest, read, sh, wait_until,
};
use fuxi_csi::error::Kind;
use fuxi_csi::exec::{PROGRAM_DIRECTORIES, SystemExec};
use fuxi_csi::model::Bytes;
use fuxi_csi::node::connector::iscsi::Iscsi;
use fuxi_csi::node::connector::{Connector, Link};
use fuxi_csi::node::device::Host;
use serde_json::json;
use std::sync::Arc;

pub(crate) const IQN: &str = "iqn.2026-01.test:volumes";

fn connector() -> Iscsi {
    only_in_the_guest();
    Iscsi::new(Host::default(), Arc::new(SystemExec::default()))
}

/// One whose iscsiadm writes what it is told, its arguments and its environment, to `/tmp/told` before it does so.
fn told_of() -> Iscsi {
    let real = sh("command -v iscsiadm");
    let script = format!("#!/bin/sh\n{{ echo \"$0 $*\"; env; }} >>/tmp/told\nexec {real} \"$@\"\n");
    std::fs::create_dir_all("/tmp/telling").unwrap();
    std::fs::write("/tmp/telling/iscsiadm", script).unwrap();
    sh("chmod +x /tmp/telling/iscsiadm");
    let directories = ["/tmp/telling"].into_iter().chain(PROGRAM_DIRECTORIES);
    Iscsi::new(Host::default(), Arc::new(SystemExec::new(directories)))
}

pub(crate) fn single(lun: u32) -> Link {
    let data =
        json!({"target_portal": "10.9.0.1:3260", "target_iqn": IQN, "target_lun": lun, "target_discovered": false});
    link("iscsi", data, 64 * MIB)
}

pub(crate) fn plural(lun: u32) -> Link {
    let portals = json!(["10.9.0.1:3260", "10.9.0.2:3260"]);
    let data = json!({"target_portals": portals, "target_iqns": [IQN, IQN], "target_luns": [lun, lun]});
    link("iscsi", data, 64 * MIB)
}

pub(crate) fn target(daemons: &str) {
    sh(&format!("address 10.9.0.1; address 10.9.0.2; iscsi_target {IQN} 10.9.0.1:3260 10.9.0.2:3260; {daemons} >&2"));
}

pub(crate) fn lun(number: u32, disk: &str) {
    sh(&format!("[ -e /tmp/disks/{disk} ] || disk {disk} 64M >/dev/null; iscsi_lun {IQN} {number} {disk}"));
}

/// Everything that an attach makes: sessions, disks, maps, records.
pub(crate) fn left() -> Vec<String> {
    let mut left = names("/sys/class/iscsi_session", "session");
    left.extend(names("/sys/class/block", "sd"));
    left.extend(names("/sys/class/block", "dm-"));
    left.extend(names("/etc/iscsi/nodes", ""));
    left
}

fn identity(disk: &str) -> Option<String> {
    let digits = sh(&format!("uuid_of {disk}")).replace('-', "");
    Some(format!("naa.6001405{}", &digits[..25]))
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_is_attached_written_and_detached() {
    let connector = connector();
    target("iscsi");
    lun(3, "a");
    let mut link = single(3);
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!((disk.size, disk.wwid.clone()), (Bytes::new(64 * MIB), identity("a")));
    link.device = Some(disk.clone());
    assert_eq!(attach(&connector, &link).await.unwrap(), disk, "again changes nothing");
    assert_eq!(located(&self::connector(), &link).await, Some(disk.clone()), "another process finds it");
    let record = sh("cat /etc/iscsi/nodes/*/*");
    assert!(record.contains("node.startup = manual") && record.contains("node.session.scan = manual"), "{record}");

    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt; echo kept >/mnt/file", disk.path.display()));
    let error = connector.disconnect(&call(), &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    sh("umount /mnt");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(located(&connector, &link).await, None);

    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mount {} /mnt; grep -x kept /mnt/file; umount /mnt", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_password_lets_in_and_is_seen_by_nobody() {
    let connector = connector();
    target("iscsi");
    lun(3, "a");
    sh(&format!("iscsi_chap {IQN} user passwordpassword"));
    let error = attach(&connector, &single(3)).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Denied | Kind::Unavailable), "without a password: {error}");
    assert_eq!(left(), Vec::<String>::new());

    let mut link = single(3);
    link.connection.data["auth_method"] = json!("CHAP");
    link.connection.data["auth_username"] = json!("user");
    let error = attach(&connector, &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    link.secrets.insert("auth_password".to_owned(), "wrongpassword".into());
    let error = attach(&connector, &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(error.to_string().contains("CHAP password") && !error.to_string().contains("wrongpassword"), "{error}");
    assert_eq!(left(), Vec::<String>::new());

    link.secrets.insert("auth_password".to_owned(), "passwordpassword".into());
    // Whoever looks at the list of processes all the time must not find it. That may miss programs that end soon:
    // what iscsiadm is told is written down each time.
    sh("rm -f /tmp/end /tmp/ended; set +e; (until [ -e /tmp/end ]; do cat /proc/[0-9]*/cmdline | tr '\\0' ' '; done; \
        touch /tmp/ended) >/tmp/seen 2>/dev/null </dev/null &");
    let disk = attach(&told_of(), &link).await.unwrap();
    sh("touch /tmp/end; timeout 60 sh -c 'until [ -e /tmp/ended ]; do sleep 0.1; done'");
    let seen = std::fs::read_to_string("/tmp/seen").unwrap();
    assert!(seen.contains("a_password_lets_in"), "the list of processes was not read: {seen}");
    assert!(!seen.contains("passwordpassword"), "the list of processes shows it: {seen}");
    let told = sh("cat /tmp/told");
    assert!(told.contains("iscsiadm") && told.contains(IQN), "{told}");
    assert!(!told.contains("passwordpassword"), "iscsiadm is told it where all see it: {told}");
    write_and_verify(&disk, "with a password");
    assert_eq!(sh("stat -c %a /etc/iscsi/nodes/*/*"), "600");
    link.secrets.clear();
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn two_portals_make_one_map_that_loses_and_regains_a_path_while_it_is_written() {
    let connector = connector();
    target("multipath");
    lun(1, "a");
    let mut link = plural(1);
    let disk = attach(&connector, &link).await.unwrap();
    assert!(disk.name.starts_with("dm-"), "{disk:?}");
    assert_eq!((disk.size, disk.wwid.clone()), (Bytes::new(64 * MIB), identity("a")));
    assert_eq!(names(&format!("/sys/class/block/{}/slaves", disk.name), "").len(), 2);
    link.device = Some(disk.clone());
    assert_eq!(attach(&connector, &link).await.unwrap(), disk, "again changes nothing");
    assert_eq!(located(&self::connector(), &link).await, Some(disk.clone()));

    let active = |count: usize| {
        wait_until("the paths are as wanted", || {
            sh("multipathd show paths raw format %t").lines().filter(|line| line.trim() == "active").count() == count
        });
    };
    sh(&format!(
        "mkfs.ext4 -q {0}; mount {0} /mnt; (head -c 24M /dev/urandom | dd of=/mnt/data bs=256k oflag=direct,sync \
         status=none; echo $? >/tmp/rc) >/dev/null 2>&1 </dev/null &",
        disk.path.display()
    ));
    sh("path_down 10.9.0.1");
    active(1);
    sh("head -c 2M /dev/urandom >/mnt/one-path; sync -f /mnt; md5sum /mnt/one-path >/tmp/sum; path_up 10.9.0.1");
    active(2);
    assert_eq!(sh("wait_for 120 test -s /tmp/rc; cat /tmp/rc"), "0", "the writer saw an error");
    sh(&format!(
        "umount /mnt; mount {0} /mnt; md5sum --status -c /tmp/sum; umount /mnt; fsck.ext4 -f -n {0}",
        disk.path.display()
    ));

    sh(&format!("mount {} /mnt; grow_disk a 128M", disk.path.display()));
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!(grown.size, Bytes::new(128 * MIB));
    sh(&format!("resize2fs {0} 2>&1; umount /mnt; fsck.ext4 -f -n {0}", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());

    sh("path_down 10.9.0.2");
    let disk = attach(&connector, &link).await.unwrap();
    assert!(disk.name.starts_with("dm-"), "one path is enough, and it is a map all the same: {disk:?}");
    sh("path_up 10.9.0.2");
    attach(&connector, &link).await.unwrap();
    assert_eq!(names(&format!("/sys/class/block/{}/slaves", disk.name), "").len(), 2, "the path that is back is added");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_grows_while_it_is_mounted() {
    let connector = connector();
    target("iscsi");
    lun(1, "a");
    let link = single(1);
    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt; grow_disk a 128M", disk.path.display()));
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!(grown.size, Bytes::new(128 * MIB));
    sh(&format!("resize2fs {0} 2>&1; umount /mnt; fsck.ext4 -f -n {0}", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

/// As Cinder may write it, and as it is meant.
const SIX: [&str; 2] = ["[FD00:9:0:0::1]:3260", "[fd00:9::1]:3260"];

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_at_an_ipv6_address_is_attached_written_grown_and_detached() {
    let connector = connector();
    sh(&format!("address fd00:9::1; iscsi_target {IQN} {}; iscsi >&2", SIX[1]));
    lun(3, "a");
    let mut link = single(3);
    link.connection.data["target_portal"] = json!(SIX[0]);
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!((disk.size, disk.wwid.clone()), (Bytes::new(64 * MIB), identity("a")));
    assert_eq!(sh("cat /sys/class/iscsi_connection/*/persistent_address"), "fd00:9::1");
    link.device = Some(disk.clone());
    assert_eq!(attach(&connector, &link).await.unwrap(), disk, "again changes nothing");
    assert_eq!(names("/sys/class/iscsi_session", "session").len(), 1);
    assert_eq!(located(&self::connector(), &link).await, Some(disk.clone()), "another process finds it");
    assert!(sh("cat /etc/iscsi/nodes/*/*").contains("node.startup = manual"));

    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt; echo kept >/mnt/file; grow_disk a 128M", disk.path.display()));
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!(grown.size, Bytes::new(128 * MIB));
    sh(&format!("resize2fs {0} 2>&1; umount /mnt; fsck.ext4 -f -n {0}", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());

    link.connection.size = Some(Bytes::new(128 * MIB));
    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mount {} /mnt; grep -x kept /mnt/file; umount /mnt", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());

    sh("ip address del fd00:9::1/128 dev portals");
    let error = attach(&connector, &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains(SIX[1]), "{error}");
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn portals_of_ipv4_and_ipv6_are_two_paths_of_one_map() {
    let connector = connector();
    sh(&format!("address 10.9.0.1; address fd00:9::1; iscsi_target {IQN} 10.9.0.1:3260 {}; multipath >&2", SIX[1]));
    lun(1, "a");
    let mut link = plural(1);
    link.connection.data["target_portals"] = json!(["10.9.0.1:3260", SIX[0]]);
    let disk = attach(&connector, &link).await.unwrap();
    assert!(disk.name.starts_with("dm-"), "{disk:?}");
    assert_eq!(names(&format!("/sys/class/block/{}/slaves", disk.name), "").len(), 2);
    write_and_verify(&disk, "over both");
    sh("grow_disk a 128M");
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!((grown.size, read(&grown)), (Bytes::new(128 * MIB), "over both".to_owned()));
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_lun_that_another_volume_got_is_never_taken_for_the_volume() {
    let connector = connector();
    target("iscsi");
    lun(1, "keeps-the-session");
    attach(&connector, &single(1)).await.unwrap();
    let mut wrong = 0;
    for round in 0..30 {
        let (disk, other) = if fastrand::bool() { ("a", "b") } else { ("b", "a") };
        lun(7, disk);
        let mut link = single(7);
        let found = attach(&connector, &link).await.unwrap();
        wrong += usize::from(found.wwid != identity(disk));
        if read(&found).trim_matches('\0').is_empty() {
            write_and_verify(&found, disk);
        }
        assert_eq!(read(&found), disk, "round {round}");
        // Reassigned under the nose of a node that forgot to detach, or did not.
        let is_stale = fastrand::bool();
        if !is_stale {
            connector.disconnect(&call(), &link).await.unwrap();
        }
        sh(&format!("iscsi_lun_remove {IQN} 7"));
        lun(7, other);
        link.device = Some(found);
        let repeated = attach(&connector, &link).await;
        wrong += usize::from(repeated.is_ok());
        assert_eq!(repeated.unwrap_err().kind(), Kind::WrongState, "round {round}");
        link.device = None;
        let found = attach(&connector, &link).await.unwrap();
        wrong += usize::from(found.wwid != identity(other));
        connector.disconnect(&call(), &link).await.unwrap();
        sh(&format!("iscsi_lun_remove {IQN} 7"));
    }
    assert_eq!(wrong, 0);
    connector.disconnect(&call(), &single(1)).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn what_goes_wrong_is_said_and_leaves_nothing() {
    let connector = connector();
    target("iscsi");
    lun(1, "a");
    let error = attach(&connector, &single(9)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "a target without the LUN: {error}");
    assert_eq!(left(), Vec::<String>::new());

    let mut promised_more = single(1);
    promised_more.connection.size = Some(Bytes::new(65 * MIB));
    let error = attach(&connector, &promised_more).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_eq!(left(), Vec::<String>::new());

    let mut unknown = single(1);
    unknown.connection.data["target_iqn"] = json!("iqn.2026-01.test:nobody");
    let error = attach(&connector, &unknown).await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
    assert_eq!(left(), Vec::<String>::new());

    let error = attach(&connector, &plural(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "no multipathd: {error}");
    assert!(error.to_string().contains("multipathd does not run"), "{error}");
    assert_eq!(left(), Vec::<String>::new());

    sh("path_down 10.9.0.1");
    let error = attach(&connector, &single(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("10.9.0.1:3260"), "{error}");
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn many_cycles_leave_nothing() {
    target("iscsi");
    cycle(&single(1)).await;
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn many_cycles_over_two_paths_leave_nothing() {
    target("multipath");
    cycle(&plural(1)).await;
}

async fn cycle(link: &Link) {
    let connector = connector();
    lun(1, "a");
    for round in 0..cycles() {
        let disk = attach(&connector, link).await.unwrap();
        if round > 0 {
            assert_eq!(read(&disk), format!("round {}", round - 1));
        }
        write_and_verify(&disk, &format!("round {round}"));
        connector.disconnect(&call(), link).await.unwrap();
        assert_eq!(left(), Vec::<String>::new(), "round {round}");
    }
}
