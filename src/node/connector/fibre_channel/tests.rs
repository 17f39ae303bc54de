//! Fibre Channel on trees of sysfs as a host with an HBA shows them, and a scripted kernel.

use super::FibreChannel;
use super::target::{Target, Wwpn};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::exec::SystemExec;
use crate::exec::scripted::ScriptedExec;
use crate::model::{AccessMode, Bytes, Connection, Secrets};
use crate::node::connector::kernel::scripted::Scripted;
use crate::node::connector::multipath::Multipath;
use crate::node::connector::scsi::Times;
use crate::node::connector::{Connector, Link, Source};
use crate::node::device::{Device, Host, fake};
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const OWN: &str = "0x21000024ff3dfb8a";
const TARGET: &str = "500a09829a1b2c3d";
const MIB: u64 = 1 << 20;

/// A fabric with one array: which volume each LUN shows now.
#[derive(Clone)]
struct Fabric {
    root: PathBuf,
    luns: Arc<Mutex<HashMap<u64, u32>>>,
    disks: Arc<Mutex<HashMap<String, Device>>>,
}

impl Fabric {
    fn new(root: &Path) -> Self {
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        write("sys/class/fc_host/host1/port_name", OWN);
        write("sys/class/fc_host/host1/port_state", "Online");
        write("sys/class/fc_host/host2/port_name", "0x21000024ff3dfb8b");
        write("sys/class/fc_host/host2/port_state", "Linkdown");
        for (rport, name, id) in [("rport-1:0-2", TARGET, "4"), ("rport-1:0-3", "500a09829a1b2c3e", "-1")] {
            write(&format!("sys/class/fc_remote_ports/{rport}/port_name"), &format!("0x{name}"));
            write(&format!("sys/class/fc_remote_ports/{rport}/scsi_target_id"), id);
        }
        write("sys/class/fc_remote_ports/rport-2:0-2/port_name", &format!("0x{TARGET}"));
        write("sys/class/fc_remote_ports/rport-2:0-2/scsi_target_id", "0");
        write("sys/class/scsi_host/host1/scan", "");
        Self { root: root.to_owned(), luns: Arc::default(), disks: Arc::default() }
    }

    fn map(&self, lun: u64, volume: u32) {
        self.luns.lock().unwrap().insert(lun, volume);
    }

    fn unmap(&self, lun: u64) {
        self.luns.lock().unwrap().remove(&lun);
    }

    fn wwid(volume: u32) -> String {
        format!("naa.600a098038303053453f{volume:012x}")
    }

    fn place(&self, lun: u64) -> PathBuf {
        self.root.join(format!("sys/class/scsi_device/1:0:4:{lun}/device"))
    }

    /// The second port gets its link, and nothing is shown there.
    fn link_up(&self) {
        fs::write(self.root.join("sys/class/fc_host/host2/port_state"), "Online\n").unwrap();
    }

    /// A path to a volume by the second port, as it was before the port lost its link.
    fn add_path_of_second_port(&self, lun: u64, volume: u32) {
        let place = self.root.join(format!("sys/class/scsi_device/2:0:0:{lun}/device"));
        fs::create_dir_all(place.join("block/sdz")).unwrap();
        fs::write(place.join("wwid"), Self::wwid(volume)).unwrap();
        let device = fake::add_disk(&self.root, "sdz", 16 * 25, 64 * MIB, None);
        self.disks.lock().unwrap().insert("sdz".to_owned(), device);
    }

    /// multipathd makes one disk of the two paths.
    fn assemble(&self, lun: u64, first: &str) {
        let write = |path: String, text: &str| {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        fake::add_disk(&self.root, "dm-0", 16 * 30, 64 * MIB, None);
        write("run/multipathd.pid".to_owned(), "1");
        write("sys/class/block/dm-0/dm/uuid".to_owned(), "mpath-3600a09");
        write("sys/class/block/dm-0/dm/name".to_owned(), "3600a09");
        for (disk, place) in [(first, format!("1:0:4:{lun}")), ("sdz", format!("2:0:0:{lun}"))] {
            write(format!("sys/class/block/dm-0/slaves/{disk}"), "");
            write(format!("sys/class/block/{disk}/holders/dm-0"), "");
            write(format!("sys/class/block/{disk}/device/scsi_device/{place}"), "");
        }
    }

    /// How many disks the machine has.
    fn count(&self) -> usize {
        self.disks.lock().unwrap().len()
    }

    /// What the kernel does with what it is told.
    fn obey(&self, file: &Path, command: &str) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if file == self.root.join("sys/class/scsi_host/host2/scan") {
            return; // nothing is zoned to that port
        }
        if name == "scan" {
            let (prefix, lun) = command.rsplit_once(' ').unwrap();
            assert_eq!((prefix, file), ("0 4", self.root.join("sys/class/scsi_host/host1/scan").as_path()));
            let (lun, place) = (lun.parse().unwrap(), self.place(lun.parse().unwrap()));
            let Some(volume) = self.luns.lock().unwrap().get(&lun).copied() else { return };
            if place.exists() {
                return; // the kernel keeps what it knows, however old
            }
            let disk = format!("sd{}", char::from(b'a' + u8::try_from(lun).unwrap()));
            fs::create_dir_all(place.join("block").join(&disk)).unwrap();
            fs::write(place.join("wwid"), Self::wwid(volume)).unwrap();
            let device = fake::add_disk(&self.root, &disk, 16 * lun, 64 * MIB, None);
            self.disks.lock().unwrap().insert(disk, device);
            return;
        }
        let place = file.parent().unwrap();
        let at = place.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let lun: u64 = at.rsplit(':').next().unwrap().parse().unwrap();
        match name {
            "rescan" => {
                if let Some(volume) = self.luns.lock().unwrap().get(&lun) {
                    fs::write(place.join("wwid"), Self::wwid(*volume)).unwrap();
                }
            }
            "delete" => {
                let disk = fs::read_dir(place.join("block")).unwrap().next().unwrap().unwrap().file_name();
                let device = self.disks.lock().unwrap().remove(disk.to_str().unwrap()).unwrap();
                fake::remove_disk(&self.root, &device);
                fs::remove_dir_all(place.parent().unwrap()).unwrap();
            }
            other => panic!("the kernel has no file {other}"),
        }
    }

    fn connector(&self) -> FibreChannel {
        let mut connector = FibreChannel::new(Host::below(&self.root), Arc::new(SystemExec::new(["/nowhere"])));
        let fabric = self.clone();
        connector.scsi.kernel = Arc::new(Scripted::new(move |file, command| {
            fabric.obey(file, command);
            Ok(String::new())
        }));
        let short = Duration::from_millis(40);
        connector.scsi.times = Times { appearance: short, other_paths: short, growth: short };
        connector
    }
}

fn link(data: Value) -> Link {
    Link {
        volume: "v".parse().unwrap(),
        connection: Connection {
            kind: "fibre_channel".to_owned(),
            data,
            size: Some(Bytes::new(64 * MIB)),
            read_only: false,
            sealed: None,
        },
        secrets: Secrets::new(),
        mode: AccessMode::SingleNodeWriter,
        device: None,
    }
}

fn to_lun(lun: u64) -> Link {
    link(json!({"target_wwn": [TARGET, "500a09829a1b2c3e"], "target_lun": lun,
        "initiator_target_map": {"21000024ff3dfb8a": [TARGET.to_uppercase()]}}))
}

async fn attach(connector: &FibreChannel, link: &Link) -> Result<Device> {
    match connector.connect(&Call::lasting(Duration::from_secs(20)), link).await? {
        Source::Block(device) => Ok(device),
        Source::Share(share) => panic!("{share:?}"),
    }
}

async fn detach(connector: &FibreChannel, link: &Link) {
    connector.disconnect(&Call::lasting(Duration::from_secs(20)), link).await.unwrap();
}

#[tokio::test]
async fn a_lun_is_scanned_at_its_exact_address_only_and_taken_away_again() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    fabric.map(3, 7);
    let disk = attach(&connector, &to_lun(3)).await.unwrap();
    assert_eq!((disk.name.as_str(), disk.wwid), ("sdd", Some(Fabric::wwid(7))));
    detach(&connector, &to_lun(3)).await;
    assert_eq!(fabric.count(), 0);
    detach(&connector, &to_lun(3)).await;
}

#[tokio::test]
async fn a_disk_whose_node_comes_later_than_its_sysfs_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    fabric.map(3, 7);
    let (node, aside) = (root.path().join("dev/sdd"), root.path().join("dev/not-yet"));
    let mut connector = fabric.connector();
    let (kernel, from, to) = (fabric.clone(), node.clone(), aside.clone());
    connector.scsi.kernel = Arc::new(Scripted::new(move |file, command| {
        if file.ends_with("delete") && to.exists() {
            fs::rename(&to, &from).unwrap();
        }
        kernel.obey(file, command);
        if file.ends_with("scan") && from.exists() {
            fs::rename(&from, &to).unwrap();
        }
        Ok(String::new())
    }));
    let error = attach(&connector, &to_lun(3)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("sdd is in sysfs and not in /dev"), "{error}");
    assert_eq!(fabric.count(), 0);

    connector.scsi.times.appearance = Duration::from_secs(10);
    let later = tokio::spawn(async move {
        while !aside.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        fs::rename(aside, node).unwrap();
    });
    let disk = attach(&connector, &to_lun(3)).await.unwrap();
    later.await.unwrap();
    assert_eq!(disk.wwid, Some(Fabric::wwid(7)));
}

#[tokio::test]
async fn what_the_back_end_calls_the_disk_is_compared_and_what_is_not_it_goes_away_again() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    fabric.map(3, 7);
    let mut link = to_lun(3);
    link.connection.data["wwn"] = json!(format!("0x{}", &Fabric::wwid(8)[4..]));
    assert_eq!(attach(&connector, &link).await.unwrap_err().kind(), Kind::WrongState);
    assert_eq!(fabric.count(), 0);
    link.connection.data["wwn"] = json!(Fabric::wwid(7)[4..].to_uppercase());
    attach(&connector, &link).await.unwrap();
    let mut larger = to_lun(3);
    larger.connection.size = Some(Bytes::new(65 * MIB));
    assert_eq!(attach(&connector, &larger).await.unwrap_err().kind(), Kind::WrongState);
    assert_eq!(fabric.count(), 0);
}

#[tokio::test]
async fn a_fabric_that_does_not_reach_the_target_is_named() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    let elsewhere = link(json!({"target_wwn": "500a09829a1bffff", "target_lun": 1}));
    let error = attach(&connector, &elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("21000024ff3dfb8b (offline)"), "{error}");
    let error = attach(&connector, &to_lun(9)).await.unwrap_err();
    assert!(error.to_string().contains("1:0:4:9"), "{error}");
}

/// LUNs reassigned between volumes in random order, by a node that detaches, forgets to, or is started again.
#[tokio::test]
async fn in_a_thousand_rounds_of_reused_luns_no_disk_is_taken_for_another_volume() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    let (mut wrong, mut refused) = (0, 0);
    for round in 0..1000 {
        let lun = fastrand::u64(0..4);
        let volume = fastrand::u32(1..6);
        fabric.map(lun, volume);
        let mut link = to_lun(lun);
        let disk = attach(&connector, &link).await.unwrap();
        wrong += usize::from(disk.wwid != Some(Fabric::wwid(volume)));
        match fastrand::u32(0..4) {
            0 => detach(&connector, &link).await,
            1 => fabric.unmap(lun), // and the stale disk stays
            2 => {
                // The record says which volume it was; another one has its place.
                link.device = Some(disk);
                fabric.map(lun, volume + 1);
                let error = attach(&connector, &link).await.unwrap_err();
                assert_eq!(error.kind(), Kind::WrongState, "round {round}: {error}");
                refused += 1;
            }
            _ => {
                link.device = Some(disk.clone());
                assert_eq!(attach(&connector, &link).await.unwrap(), disk, "round {round}");
            }
        }
    }
    assert_eq!(wrong, 0);
    assert!(refused > 100, "{refused}");
}

#[test]
fn connections_are_read_in_every_form_and_nonsense_is_refused() {
    let of = |data| Target::of(&link(data));
    let single =
        of(json!({"target_wwn": "0x500A09829A1B2C3D", "target_lun": "300", "addressing_mode": "SAM2"})).unwrap();
    assert_eq!(single.ports.values().next().unwrap().to_string(), (300 + 0x4000).to_string());
    let plural =
        of(json!({"target_wwns": ["50:0a:09:82:9a:1b:2c:3d", "500a09829a1b2c3e"], "target_luns": [1, 2]})).unwrap();
    assert_eq!(plural.ports.len(), 2);
    let wrong = [
        json!({}),
        json!({"target_wwn": TARGET}),
        json!({"target_wwn": "../../etc", "target_lun": 1}),
        json!({"target_wwn": TARGET, "target_lun": -1}),
        json!({"target_wwn": TARGET, "target_lun": 70000}),
        json!({"target_wwn": TARGET, "target_lun": "1 - -"}),
        json!({"target_wwns": [TARGET, TARGET], "target_luns": [1]}),
        json!({"target_wwn": TARGET, "target_lun": 1, "initiator_target_map": ["x"]}),
        json!({"target_wwn": TARGET, "target_lun": 1, "initiator_target_map": {"x": []}}),
    ];
    for data in wrong {
        assert_eq!(of(data.clone()).unwrap_err().kind(), Kind::InvalidArgument, "{data}");
    }
}

proptest! {
    #[test]
    fn port_names_are_sixteen_digits_or_nothing(text in any::<String>()) {
        if let Ok(name) = text.parse::<Wwpn>() {
            let shown = name.to_string();
            assert!(shown.len() == 16 && shown.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}

fn to_lun_by_all_ports(lun: u64) -> Link {
    link(json!({"target_wwn": TARGET, "target_lun": lun}))
}

#[tokio::test]
async fn a_disk_that_was_here_before_stays_when_connecting_it_again_fails() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    fabric.map(3, 7);
    let mut link = to_lun_by_all_ports(3);
    link.device = Some(attach(&connector, &link).await.unwrap());
    // A pod has it as raw block, and nobody sees that. Then there is a second way, which would take a multipathd.
    fabric.link_up();
    let error = attach(&connector, &link).await.unwrap_err();
    assert!(error.to_string().contains("multipathd does not run"), "{error}");
    assert_eq!(fabric.count(), 1);
    // Nor does it go when the back end calls it something else, or its size is not that of the volume.
    let mut told = link.clone();
    told.connection.data["wwn"] = json!(Fabric::wwid(8));
    told.connection.data["initiator_target_map"] = json!({"21000024ff3dfb8a": [TARGET]});
    assert_eq!(attach(&connector, &told).await.unwrap_err().kind(), Kind::WrongState);
    assert_eq!(fabric.count(), 1);
    let mut larger = told.clone();
    larger.connection.size = Some(Bytes::new(65 * MIB));
    assert_eq!(attach(&connector, &larger).await.unwrap_err().kind(), Kind::WrongState);
    assert_eq!(fabric.count(), 1);
    detach(&connector, &link).await;
    assert_eq!(fabric.count(), 0);
}

#[tokio::test]
async fn a_path_that_joined_the_map_of_a_disk_that_was_here_before_stays_with_it() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let mut connector = fabric.connector();
    fabric.map(3, 7);
    let mut link = to_lun_by_all_ports(3);
    link.device = Some(attach(&connector, &link).await.unwrap());
    fabric.link_up();
    let kernel = fabric.clone();
    connector.scsi.kernel = Arc::new(Scripted::new(move |file, command| {
        if file.ends_with("host2/scan") {
            kernel.add_path_of_second_port(3, 7);
            kernel.assemble(3, "sdd");
        }
        kernel.obey(file, command);
        Ok(String::new())
    }));
    let exec = ScriptedExec::new();
    exec.always("multipath", 0, "ok", "");
    connector.scsi.multipath = Multipath::new(Host::below(root.path()), Arc::new(exec.clone()));
    link.connection.size = Some(Bytes::new(65 * MIB));
    assert_eq!(attach(&connector, &link).await.unwrap_err().kind(), Kind::WrongState);
    assert_eq!(fabric.count(), 2);
    for command in ["multipathd disablequeueing", "multipath -f"] {
        assert!(!exec.has_run(command), "{:?}", exec.ran());
    }
}

#[tokio::test]
async fn a_path_by_a_port_that_lost_its_link_is_taken_away_with_the_others() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    fabric.map(3, 7);
    let mut link = to_lun_by_all_ports(3);
    link.device = Some(attach(&connector, &link).await.unwrap());
    fabric.add_path_of_second_port(3, 7);
    assert_eq!(fabric.count(), 2);
    detach(&connector, &link).await;
    assert_eq!(fabric.count(), 0);
}

#[tokio::test]
async fn what_another_volume_has_by_a_port_that_lost_its_link_stays() {
    let root = tempfile::tempdir().unwrap();
    let fabric = Fabric::new(root.path());
    let connector = fabric.connector();
    fabric.map(3, 7);
    let mut link = to_lun_by_all_ports(3);
    link.device = Some(attach(&connector, &link).await.unwrap());
    fabric.add_path_of_second_port(3, 8);
    detach(&connector, &link).await;
    assert_eq!(fabric.count(), 1);
}
