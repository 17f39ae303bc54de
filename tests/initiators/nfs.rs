//! Volumes that are files on an NFS export: the kernel's client and loop devices, the kernel's server.

use crate::machine::{MIB, attach, call, device, link, located, names, only_in_the_guest, read, sh, write_and_verify};
use fuxi_csi::error::Kind;
use fuxi_csi::exec::SystemExec;
use fuxi_csi::model::{AccessMode, Bytes};
use fuxi_csi::node::connector::nfs_file::NfsFile;
use fuxi_csi::node::connector::{Connector, Link};
use fuxi_csi::node::device::Host;
use fuxi_csi::node::mount::system::SystemMounter;
use serde_json::json;
use std::sync::Arc;

/// The folder that is exported. It lies on a file system of its own, as the guest's root cannot be exported.
const FOLDER: &str = "/srv/cinder";

fn connector() -> NfsFile {
    only_in_the_guest();
    NfsFile::new(Host::default(), Arc::new(SystemExec::default()), Arc::new(SystemMounter::default()), "/run/exports")
}

/// A server with volumes `a` and `b`.
fn server() {
    sh(&format!(
        "device=$(disk nfs 512M); mkfs.ext4 -q $device; mkdir -p {FOLDER}; mount $device {FOLDER}; \
         nfs_export {FOLDER}; truncate -s 64M {FOLDER}/volume-a {FOLDER}/volume-b"
    ));
}

/// As Cinder's NFS driver gives it.
fn link_to(name: &str) -> Link {
    let data = json!({"export": format!("127.0.0.1:{FOLDER}"), "name": name, "options": "-o vers=4.2", "format": "raw",
        "mount_point_base": "/var/lib/cinder/mnt"});
    link("nfs", data, 64 * MIB)
}

/// Loop devices of our files, and mounts of the export.
fn left() -> Vec<String> {
    let files = names("/sys/block", "loop").into_iter();
    let files = files.filter_map(|name| std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok());
    let mut left: Vec<_> = files.filter(|file| file.starts_with("/run/exports")).collect();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    left.extend(mounts.lines().filter(|line| line.starts_with("127.0.0.1:")).map(ToOwned::to_owned));
    left
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn volumes_of_one_export_are_attached_written_grown_and_detached() {
    let connector = connector();
    server();
    let (mut a, b) = (link_to("volume-a"), link_to("volume-b"));
    let disk = attach(&connector, &a).await.unwrap();
    assert_eq!(disk.size, Bytes::new(64 * MIB));
    assert_eq!(attach(&connector, &a).await.unwrap(), disk, "again changes nothing");
    a.device = Some(disk.clone());
    assert_eq!(located(&self::connector(), &a).await, Some(disk.clone()), "another process finds it");
    let other = attach(&connector, &b).await.unwrap();
    write_and_verify(&disk, "in a");
    write_and_verify(&other, "in b");
    assert_eq!(sh("grep -c ^127 /proc/mounts"), "1", "one mount for both");

    sh(&format!("truncate -s 128M {FOLDER}/volume-a"));
    let grown = device(connector.rescan(&call(), &a, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!(grown.size, Bytes::new(128 * MIB));

    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt", other.path.display()));
    let error = connector.disconnect(&call(), &b).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "it is mounted: {error}");
    sh("echo kept >/mnt/file; umount /mnt");
    write_and_verify(&disk, "again");
    connector.disconnect(&call(), &a).await.unwrap();
    assert_ne!(left(), Vec::<String>::new(), "the other one is still there");
    // What was written is not in this node's cache of the export only.
    assert_eq!(sh(&format!("head -c 5 {FOLDER}/volume-a")), "again");
    connector.disconnect(&call(), &b).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
    connector.disconnect(&call(), &b).await.unwrap();

    let disk = attach(&connector, &b).await.unwrap();
    sh(&format!("mount {} /mnt; grep -x kept /mnt/file; umount /mnt", disk.path.display()));
    connector.disconnect(&call(), &b).await.unwrap();
    let mut reader = link_to("volume-a");
    reader.mode = AccessMode::MultiNodeReaderOnly;
    let disk = attach(&connector, &reader).await.unwrap();
    assert!(disk.read_only);
    assert_eq!(read(&disk), "again");
    connector.disconnect(&call(), &reader).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn what_goes_wrong_is_said_and_leaves_nothing() {
    let connector = connector();
    server();
    let error = attach(&connector, &link_to("volume-nowhere")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("volume-nowhere"), "{error}");
    assert_eq!(left(), Vec::<String>::new(), "after a file that is not there");

    let mut promised_more = link_to("volume-a");
    promised_more.connection.size = Some(Bytes::new(65 * MIB));
    let error = attach(&connector, &promised_more).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_eq!(left(), Vec::<String>::new(), "after a file that is too small");

    sh(&format!("printf 'QFI\\xfb' | dd of={FOLDER}/volume-b conv=notrunc status=none"));
    let error = attach(&connector, &link_to("volume-b")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("qcow2"), "{error}");
    assert_eq!(left(), Vec::<String>::new(), "after an image");

    let mut elsewhere = link_to("volume-a");
    elsewhere.connection.data["export"] = json!("127.0.0.1:/nowhere");
    let error = attach(&connector, &elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("/nowhere"), "{error}");
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn many_cycles_leave_nothing() {
    let connector = connector();
    server();
    let link = link_to("volume-a");
    for round in 0..crate::machine::cycles() {
        let disk = attach(&connector, &link).await.unwrap();
        if round > 0 {
            assert_eq!(read(&disk), format!("round {}", round - 1));
        }
        write_and_verify(&disk, &format!("round {round}"));
        connector.disconnect(&call(), &link).await.unwrap();
        assert_eq!(left(), Vec::<String>::new(), "round {round}");
    }
}
