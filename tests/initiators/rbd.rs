//! The kernel's Ceph block devices, on a real Ceph outside of the guest.

use crate::machine::write_and_verify;
use crate::machine::{
    MIB, attach, call, cycles, device, link, located, names, only_in_the_guest, read, sh, try_sh, wait_until,
};
use fuxi_csi::error::Kind;
use fuxi_csi::exec::SystemExec;
use fuxi_csi::model::{AccessMode, Bytes};
use fuxi_csi::node::connector::rbd::Rbd;
use fuxi_csi::node::connector::{Connector, Link};
use fuxi_csi::node::device::Host;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The image of this test: each test is a process, and what a test that failed left behind is watched for a while.
pub(crate) fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("volume-{:08x}", fastrand::u32(..)))
}

fn connector() -> Rbd {
    only_in_the_guest();
    Rbd::new(Host::default(), Arc::new(SystemExec::default()))
}

pub(crate) fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: tests/guest/initiators does"))
}

/// rbd(8) with the rights of Cinder.
pub(crate) fn rbd(arguments: &str) -> String {
    let monitor = environment("CEPH_MONITOR_V1");
    sh(&format!("rbd -m {monitor} --id cinder --keyfile /share/ceph.key {arguments} 2>&1"))
}

/// An image as Cinder makes it; what a test before left is taken away.
pub(crate) fn image(options: &str) {
    let name = name();
    let monitor = environment("CEPH_MONITOR_V1");
    let _ = try_sh(&format!("rbd -m {monitor} --id cinder --keyfile /share/ceph.key rm volumes/{name} 2>&1"));
    rbd(&format!("create --size 64M {options} volumes/{name}"));
}

fn link_over(monitor: &str) -> Link {
    let name = name();
    let (host, port) = monitor.rsplit_once(':').unwrap();
    // As real Cinder gives it, with the fields that mean nothing here.
    let data = json!({
        "name": format!("volumes/{name}"), "hosts": [host], "ports": [port], "cluster_name": "ceph",
        "auth_enabled": true, "auth_username": "cinder", "secret_type": "ceph", "secret_uuid": environment("CEPH_FSID"),
        "volume_id": "5a1c7b52", "discard": true,
    });
    let mut link = link("rbd", data, 64 * MIB);
    link.secrets.insert("keyring".to_owned(), environment("CEPH_KEY").into());
    link
}

pub(crate) fn the_link() -> Link {
    link_over(&environment("CEPH_MONITOR_V1"))
}

pub(crate) fn mapped() -> Vec<String> {
    names("/sys/bus/rbd/devices", "")
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_is_mapped_written_and_unmapped() {
    let connector = connector();
    image("");
    let mut link = the_link();
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!(disk.size, Bytes::new(64 * MIB));
    let wwid = disk.wwid.clone().unwrap();
    assert!(wwid.starts_with(&format!("rbd:{}/", environment("CEPH_FSID"))), "{wwid}");
    assert_eq!(attach(&connector, &link).await.unwrap(), disk, "again changes nothing");
    assert_eq!(mapped().len(), 1);
    link.device = Some(disk.clone());
    link.secrets.clear();
    assert_eq!(
        located(&self::connector(), &link).await,
        Some(disk.clone()),
        "another process finds it, without the key"
    );
    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt; echo kept >/mnt/file", disk.path.display()));
    let error = connector.disconnect(&call(), &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    sh("umount /mnt");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(mapped(), Vec::<String>::new());
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(located(&connector, &link).await, None);

    let disk = attach(&connector, &the_link()).await.unwrap();
    sh(&format!("mount {} /mnt; grep -x kept /mnt/file; umount /mnt", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn both_messengers_shared_and_read_only_images_are_mapped() {
    let connector = connector();
    image("--image-shared");
    for mode in ["prefer-crc", "secure"] {
        let mut link = link_over(&environment("CEPH_MONITOR_V2"));
        link.connection.data["ms_mode"] = json!(mode);
        // This image has no lock that could be held: it is mapped without.
        link.connection.data["exclusive"] = json!(true);
        let disk = attach(&connector, &link).await.unwrap();
        write_and_verify(&disk, mode);
        connector.disconnect(&call(), &link).await.unwrap();
    }
    let mut link = the_link();
    link.mode = AccessMode::MultiNodeMultiWriter;
    let disk = attach(&connector, &link).await.unwrap();
    assert_eq!(read(&disk), "secure");

    // Staged for reading after a restart: the mapping that is there does not fit.
    link.mode = AccessMode::MultiNodeReaderOnly;
    let disk = attach(&connector, &link).await.unwrap();
    assert!(disk.read_only);
    assert_eq!(read(&disk), "secure");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(mapped(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn a_volume_grows_while_it_is_mounted() {
    let connector = connector();
    image("");
    let link = the_link();
    let disk = attach(&connector, &link).await.unwrap();
    sh(&format!("mkfs.ext4 -q {0}; mount {0} /mnt", disk.path.display()));
    let name = name();
    rbd(&format!("resize --no-progress --size 128M volumes/{name}"));
    let grown = device(connector.rescan(&call(), &link, Bytes::new(128 * MIB)).await.unwrap());
    assert_eq!(grown.size, Bytes::new(128 * MIB));
    sh(&format!("resize2fs {0} 2>&1; umount /mnt; fsck.ext4 -f -n {0}", disk.path.display()));
    connector.disconnect(&call(), &link).await.unwrap();
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn another_writer_is_refused_by_ceph_itself() {
    let connector = connector();
    image("");
    sh(&format!(
        r#"cat >/tmp/hold.py <<'END'
import rados, rbd, sys, time
cluster = rados.Rados(rados_id="cinder", conf=dict(mon_host="{}", keyfile="/share/ceph.key"))
cluster.connect()
image = rbd.Image(cluster.open_ioctx("volumes"), "{}")
image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
open("/tmp/held", "w").close()
time.sleep(1000)
END
        setsid python3 /tmp/hold.py </dev/null >/tmp/hold.log 2>&1 & echo $! >/tmp/holder
        wait_for 60 test -e /tmp/held"#,
        environment("CEPH_MONITOR_V1"),
        name()
    ));
    let mut link = the_link();
    link.connection.data["exclusive"] = json!(true);
    let error = attach(&connector, &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("another node"), "{error}");
    assert_eq!(mapped(), Vec::<String>::new());

    // A node that dies does not let go; Ceph forgets it after a while.
    sh("kill -9 $(cat /tmp/holder)");
    let mut disk = attach(&connector, &link).await;
    for _ in 0..20 {
        if disk.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        disk = attach(&connector, &link).await;
    }
    write_and_verify(&disk.unwrap(), "mine now");
    connector.disconnect(&call(), &link).await.unwrap();
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn what_goes_wrong_is_said_and_leaves_nothing() {
    let connector = connector();
    image("");
    let mut wrong = the_link();
    // A key in its form, and not the right one.
    let key = environment("CEPH_KEY");
    let (start, end) = key.split_at(24);
    let swapped = if end.starts_with('A') { 'B' } else { 'A' };
    let other = format!("{start}{swapped}{}", &end[1..]);
    wrong.secrets.insert("keyring".to_owned(), other.clone().into());
    let error = attach(&connector, &wrong).await.unwrap_err();
    assert!(!error.to_string().contains(&other), "{error}");
    assert!(matches!(error.kind(), Kind::Denied | Kind::Unavailable), "{:?} {error}", error.kind());

    let mut none = the_link();
    none.secrets.clear();
    let error = attach(&connector, &none).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState);
    assert!(error.to_string().contains("cephx key of client.cinder"), "{error}");

    let mut absent = the_link();
    absent.connection.data["name"] = json!("volumes/volume-nowhere");
    let error = attach(&connector, &absent).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState);
    assert!(error.to_string().contains("no such pool or image"), "{error}");

    let mut promised_more = the_link();
    promised_more.connection.size = Some(Bytes::new(65 * MIB));
    let error = attach(&connector, &promised_more).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_eq!(mapped(), Vec::<String>::new());

    // Deleted and made again under its name while the record knows the old one.
    let mut link = the_link();
    let disk = attach(&connector, &link).await.unwrap();
    connector.disconnect(&call(), &link).await.unwrap();
    link.device = Some(disk);
    image("");
    let error = attach(&connector, &link).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("another image has its name"), "{error}");
    connector.disconnect(&call(), &link).await.unwrap();
    assert_eq!(mapped(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs in the guest: tests/guest/initiators"]
async fn many_cycles_leave_nothing() {
    let connector = connector();
    image("");
    let link = the_link();
    let started = Instant::now();
    for round in 0..cycles() {
        let disk = attach(&connector, &link).await.unwrap();
        if round > 0 {
            assert_eq!(read(&disk), format!("round {}", round - 1));
        }
        write_and_verify(&disk, &format!("round {round}"));
        connector.disconnect(&call(), &link).await.unwrap();
        assert_eq!(mapped(), Vec::<String>::new(), "round {round}");
        println!("round {round} after {:?}", started.elapsed());
    }
    let status = format!("status volumes/{}", name());
    wait_until("no one watches the image", || rbd(&status).contains("Watchers: none"));
}
