//! The node on real loop devices, file systems and mounts. Needs root; skips itself, with the reason, where it cannot run.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should say so and stop")]
#![allow(clippy::panic, clippy::print_stdout, reason = "tests fail by panicking, and say why they skip")]
#![allow(clippy::disallowed_methods, reason = "the test's own programs, outside any runtime")]
#![allow(missing_docs, reason = "a test program has no readers of documentation")]

mod loop_machine;

use fuxi_csi::error::Kind;
use fuxi_csi::exec::SystemExec;
use fuxi_csi::model::{AccessMode, Bytes, Capability, Severity};
use fuxi_csi::node::filesystem::btrfs::Btrfs;
use fuxi_csi::node::filesystem::{Filesystem, Tools};
use loop_machine::{Disk, MIB, Machine, call, digest, mounted, mounted_with, must, raw, run, unmount};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SIZE: u64 = 512 * MIB;
const FILESYSTEMS: [&str; 4] = ["ext4", "ext3", "xfs", "btrfs"];

#[tokio::test]
async fn loop_a_volume_keeps_its_data_through_its_life() {
    let Some(machine) = Machine::start() else { return };
    for (number, fstype) in (1..).zip(FILESYSTEMS) {
        let disk = machine.disk(number, SIZE);
        let target = machine.target_path(&disk, "one");
        for round in 0..2 {
            for _ in 0..2 {
                machine.stage(&disk, mounted(fstype)).await.unwrap();
            }
            assert_eq!(machine.mounts(&machine.staging_path(&disk)).len(), 1, "{fstype}");
            for workload in ["one", "two", "one"] {
                machine.publish(&disk, workload, mounted(fstype)).await.unwrap();
            }
            assert_eq!(machine.mounts(&target).len(), 1, "{fstype}: publishing twice mounts once");
            assert_eq!(machine.mounts(&target)[0].fstype, fstype);
            if round == 0 {
                fs::write(target.join("file"), fstype).unwrap();
            }
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), fstype, "restaged");

            let stats = machine.node.stats(&call(), &disk.id, &target).await.unwrap();
            assert!(stats.bytes.total > SIZE / 2 && stats.bytes.total <= SIZE, "{fstype}: {stats:?}");
            assert!(stats.bytes.available > 0 && stats.bytes.used < stats.bytes.total, "{fstype}: {stats:?}");
            assert_eq!(stats.inodes.is_some(), fstype != "btrfs");
            let problems = machine.node.health(&call(), &disk.id, Some(&target), None).await.unwrap();
            assert_eq!(problems, []);

            let error = machine.unstage(&disk).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Busy, "{fstype}: still published");
            for workload in ["one", "two", "one"] {
                machine.unpublish(&disk, workload).await.unwrap();
            }
            assert!(!target.exists());
            for _ in 0..2 {
                machine.unstage(&disk).await.unwrap();
            }
            assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new());
        }
    }
}

#[tokio::test]
async fn loop_a_clone_is_mounted_beside_its_source() {
    let Some(machine) = Machine::start() else { return };
    for (number, fstype) in (1..).step_by(3).zip(FILESYSTEMS) {
        let source = machine.disk(number, SIZE);
        machine.stage(&source, mounted(fstype)).await.unwrap();
        let at_source = machine.staging_path(&source);
        let file = File::create(at_source.join("file")).unwrap();
        (&file).write_all(b"shared").unwrap();
        // A snapshot is taken of a file system in use: its log is not empty.
        file.sync_all().unwrap();
        drop(file);
        let clones = [machine.copy(number + 1, &source), machine.copy(number + 2, &source)];
        for clone in &clones {
            machine.stage(clone, mounted(fstype)).await.unwrap_or_else(|error| panic!("{fstype}: {error}"));
            let at_clone = machine.staging_path(clone);
            assert_eq!(fs::read_to_string(at_clone.join("file")).unwrap(), "shared");
            fs::write(at_clone.join("file"), "changed").unwrap();
        }
        assert_eq!(fs::read_to_string(at_source.join("file")).unwrap(), "shared", "{fstype}");
        // The clone first, then its source: the other order.
        for disk in clones.iter().chain([&source]) {
            machine.unstage(disk).await.unwrap();
        }
        for (disk, content) in [(&clones[1], "changed"), (&source, "shared"), (&clones[0], "changed")] {
            machine.stage(disk, mounted(fstype)).await.unwrap_or_else(|error| panic!("{fstype}: {error}"));
            assert_eq!(fs::read_to_string(machine.staging_path(disk).join("file")).unwrap(), content, "{fstype}");
        }
    }
}

#[tokio::test]
async fn loop_a_copied_btrfs_is_made_distinct_only_if_that_does_it_no_harm() {
    let Some(machine) = Machine::start() else { return };
    let exec = SystemExec::default();
    let tools = Tools { exec: &exec, call: &call() };
    let source = machine.disk(1, SIZE);
    machine.stage(&source, mounted("btrfs")).await.unwrap();
    let staging_path = machine.staging_path(&source);
    fs::write(staging_path.join("file"), "content").unwrap();
    must("sync", &["-f", staging_path.to_str().unwrap()]);
    let clean = machine.copy(2, &source);
    // What is synced by itself goes to the log.
    File::options().append(true).open(staging_path.join("file")).unwrap().sync_all().unwrap();
    fs::write(staging_path.join("other"), "content").unwrap();
    File::open(staging_path.join("other")).unwrap().sync_all().unwrap();
    let in_use = machine.copy(3, &source);

    let before = digest(&in_use.image);
    let error = Btrfs.make_distinct(&tools, &in_use.device).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_eq!(digest(&in_use.image), before);
    assert!(Btrfs.make_distinct(&tools, &clean.device).await.unwrap());
    for disk in [&clean, &in_use] {
        machine.stage(disk, mounted("btrfs")).await.unwrap();
        assert_eq!(fs::read_to_string(machine.staging_path(disk).join("file")).unwrap(), "content");
    }
}

#[tokio::test]
async fn loop_a_mounted_file_system_grows() {
    let Some(machine) = Machine::start() else { return };
    for (number, fstype) in (1..).zip(FILESYSTEMS) {
        let mut disk = machine.disk(number, SIZE);
        machine.stage(&disk, mounted(fstype)).await.unwrap();
        machine.publish(&disk, "one", mounted(fstype)).await.unwrap();
        let target = machine.target_path(&disk, "one");
        let before = machine.node.stats(&call(), &disk.id, &target).await.unwrap();
        assert_eq!(machine.expand(&disk, &target, SIZE).await.unwrap(), Bytes::new(SIZE), "nothing to do");
        let error = machine.expand(&disk, &target, 2 * SIZE).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "the device has not grown yet: {error}");

        machine.enlarge(&mut disk, 2 * SIZE);
        let grown = machine.expand(&disk, &target, 2 * SIZE).await;
        if fstype.starts_with("ext") && grown.as_ref().is_err_and(|error| error.is(Kind::WrongState)) {
            println!("{fstype} does not grow here while mounted: {}", grown.unwrap_err());
            machine.unpublish(&disk, "one").await.unwrap();
            machine.unstage(&disk).await.unwrap();
            machine.stage(&disk, mounted(fstype)).await.unwrap();
            machine.publish(&disk, "one", mounted(fstype)).await.unwrap();
        } else {
            assert_eq!(grown.unwrap(), Bytes::new(2 * SIZE), "{fstype}");
        }
        let after = machine.node.stats(&call(), &disk.id, &target).await.unwrap();
        assert!(after.bytes.total > before.bytes.total + SIZE * 9 / 10, "{fstype}: {before:?} {after:?}");
        let size = machine.expand(&disk, &target, 2 * SIZE).await.unwrap();
        assert_eq!(size, Bytes::new(2 * SIZE), "{fstype}: repeating is success");
    }
}

#[tokio::test]
async fn loop_a_volume_that_grew_while_away_is_grown_when_it_is_staged() {
    let Some(machine) = Machine::start() else { return };
    for (number, fstype) in (1..).zip(FILESYSTEMS) {
        let mut disk = machine.disk(number, SIZE);
        machine.stage(&disk, mounted(fstype)).await.unwrap();
        let staging_path = machine.staging_path(&disk);
        fs::write(staging_path.join("file"), fstype).unwrap();
        machine.unstage(&disk).await.unwrap();
        machine.enlarge(&mut disk, 2 * SIZE);
        machine.stage(&disk, mounted(fstype)).await.unwrap();
        let stats = machine.node.stats(&call(), &disk.id, &staging_path).await.unwrap();
        assert!(stats.bytes.total > SIZE * 3 / 2, "{fstype}: {stats:?}");
        assert_eq!(fs::read_to_string(staging_path.join("file")).unwrap(), fstype);
    }
}

#[tokio::test]
async fn loop_a_read_only_publication_takes_no_writes() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    machine.stage(&disk, mounted_with(Some("xfs"), &["nosuid"])).await.unwrap();
    let mut request = machine.publish_request(&disk, "one", mounted("xfs"));
    request.read_only = true;
    for _ in 0..2 {
        machine.node.publish(&call(), &request).await.unwrap();
    }
    let target = machine.target_path(&disk, "one");
    assert_eq!(machine.mounts(&target).len(), 1);
    assert!(machine.mounts(&target)[0].options.contains(&"nosuid".to_owned()), "flags of the staged mount stay");
    assert_eq!(fs::write(target.join("file"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(machine.leftovers().len(), 3, "two mounts and a record: {:?}", machine.leftovers());
    request.read_only = false;
    let error = machine.node.publish(&call(), &request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");

    machine.publish(&disk, "two", mounted("xfs")).await.unwrap();
    fs::write(machine.target_path(&disk, "two").join("file"), "x").unwrap();
    let mut request = machine.publish_request(&disk, "two", mounted("xfs"));
    request.read_only = true;
    assert_eq!(machine.node.publish(&call(), &request).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(machine.mounts(&machine.target_path(&disk, "two")).len(), 1);
}

#[tokio::test]
async fn loop_a_volume_for_readers_is_not_written_at_all() {
    let Some(machine) = Machine::start() else { return };
    for (number, fstype) in (1..).zip(FILESYSTEMS) {
        let disk = machine.disk(number, SIZE);
        let reading = Capability { mode: AccessMode::MultiNodeReaderOnly, ..mounted(fstype) };
        let error = machine.stage(&disk, reading.clone()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState, "a blank volume is not formatted to be read: {error}");
        machine.stage(&disk, mounted(fstype)).await.unwrap();
        fs::write(machine.staging_path(&disk).join("file"), "x").unwrap();
        machine.unstage(&disk).await.unwrap();

        let before = digest(&disk.image);
        machine.stage(&disk, reading.clone()).await.unwrap();
        machine.publish(&disk, "one", reading).await.unwrap();
        let target = machine.target_path(&disk, "one");
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "x");
        assert_eq!(fs::write(target.join("file"), "y").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        let problems = machine.node.health(&call(), &disk.id, Some(&target), None).await.unwrap();
        assert_eq!(problems, [], "read-only as asked");
        machine.unpublish(&disk, "one").await.unwrap();
        machine.unstage(&disk).await.unwrap();
        assert_eq!(digest(&disk.image), before, "{fstype}");
        assert_eq!(must("blockdev", &["--getro", disk.device.to_str().unwrap()]).trim(), "0");
        machine.stage(&disk, mounted(fstype)).await.unwrap();
    }
}

#[tokio::test]
async fn loop_raw_block_is_shown_once_and_grows() {
    let Some(machine) = Machine::start() else { return };
    let mut disk = machine.disk(1, SIZE);
    let target = machine.target_path(&disk, "one");
    for _ in 0..2 {
        machine.stage(&disk, raw()).await.unwrap();
        machine.publish(&disk, "one", raw()).await.unwrap();
    }
    assert_eq!(machine.mounts(&target).len(), 1, "publishing twice mounts once");
    assert_eq!(machine.mounts(&machine.staging_path(&disk)).len(), 0);
    OpenOptions::new().write(true).open(&target).unwrap().write_all_at(b"raw data", 3 * MIB).unwrap();
    let stats = machine.node.stats(&call(), &disk.id, &target).await.unwrap();
    assert_eq!((stats.bytes.total, stats.inodes), (SIZE, None));
    machine.enlarge(&mut disk, 2 * SIZE);
    assert_eq!(machine.expand(&disk, &target, 2 * SIZE).await.unwrap(), Bytes::new(2 * SIZE));
    assert_eq!(machine.node.health(&call(), &disk.id, Some(&target), None).await.unwrap(), []);
    assert_eq!(machine.unstage(&disk).await.unwrap_err().kind(), Kind::Busy, "still published");
    machine.unpublish(&disk, "one").await.unwrap();
    assert!(!target.exists());
    let error = machine.stage(&disk, mounted("ext4")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    machine.unstage(&disk).await.unwrap();

    let error = machine.stage(&disk, mounted("ext4")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "raw data are not overwritten: {error}");
    let mut content = [0; 8];
    File::open(&disk.device).unwrap().read_exact_at(&mut content, 3 * MIB).unwrap();
    assert_eq!(&content, b"raw data");
    assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new(), "a refused staging leaves nothing");
}

/// Stages a disk that must be refused, and makes sure that not a byte of it changed.
async fn refuse(machine: &Machine, disk: &Disk, fstype: &str, words: &str) {
    let before = digest(&disk.image);
    let error = machine.stage(disk, mounted(fstype)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
    assert_eq!(digest(&disk.image), before, "{error}");
    assert_eq!(machine.mounts(&machine.staging_path(disk)), []);
    assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new(), "{error}");
}

#[tokio::test]
async fn loop_what_is_not_blank_is_never_formatted() {
    let Some(machine) = Machine::start() else { return };
    // Small, since all of it is read before and after.
    let size = 128 * MIB;
    let disk = |number| machine.disk(number, size);
    let write = |disk: &Disk, at, bytes: &[u8]| {
        OpenOptions::new().write(true).open(&disk.device).unwrap().write_all_at(bytes, at).unwrap();
        must("sync", &[disk.image.to_str().unwrap()]);
    };
    let xfs = machine.disk(1, 320 * MIB);
    must("mkfs.xfs", &["-q", xfs.device.to_str().unwrap()]);
    refuse(&machine, &xfs, "ext4", "type xfs").await;
    let swap = disk(2);
    if run("mkswap", &[swap.device.to_str().unwrap()]).0 {
        refuse(&machine, &swap, "ext4", "swap").await;
    }
    let partitioned = disk(3);
    // A DOS partition table with one entry.
    let mut sector = [0; 512];
    sector[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 8, 0]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    write(&partitioned, 0, &sector);
    refuse(&machine, &partitioned, "ext4", "partition table").await;
    let encrypted = disk(4);
    let mut header = [0; 4096];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    write(&encrypted, 0, &header);
    refuse(&machine, &encrypted, "xfs", "crypto_LUKS").await;
    let lvm = disk(5);
    let mut label = [0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    write(&lvm, 512, &label);
    refuse(&machine, &lvm, "xfs", "").await;
    let ambivalent = disk(6);
    must("mkfs.ext4", &["-q", "-F", ambivalent.device.to_str().unwrap()]);
    must("mkfs.btrfs", &["-q", "-f", disk(7).device.to_str().unwrap()]);
    let mut superblock = vec![0; 4096];
    File::open(machine.path("image-7")).unwrap().read_exact_at(&mut superblock, 64 << 10).unwrap();
    write(&ambivalent, 64 << 10, &superblock);
    refuse(&machine, &ambivalent, "ext4", "").await;
    for (number, at) in [(8, 0), (9, size / 2), (10, size - 1)] {
        let garbage = disk(number);
        write(&garbage, at, b"x");
        refuse(&machine, &garbage, "btrfs", &format!("byte {at}")).await;
    }
}

#[tokio::test]
async fn loop_an_unnamed_file_system_is_taken_as_it_is() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    machine.stage(&disk, mounted("xfs")).await.unwrap();
    machine.unstage(&disk).await.unwrap();
    machine.stage(&disk, mounted_with(None, &[])).await.unwrap();
    assert_eq!(machine.mounts(&machine.staging_path(&disk))[0].fstype, "xfs");
}

#[tokio::test]
async fn loop_a_device_that_is_not_the_volume_is_never_touched() {
    let Some(machine) = Machine::start() else { return };
    let mut small = machine.disk(1, 64 * MIB);
    small.size = 65 * MIB;
    refuse(&machine, &small, "ext4", "promised").await;
    let empty = Disk { size: SIZE, ..machine.disk(2, 0) };
    let error = machine.stage(&empty, mounted("ext4")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::WrongState | Kind::Unavailable), "{error}");
    let gone = machine.disk(3, SIZE);
    machine.detach(&gone);
    let error = machine.stage(&gone, mounted("ext4")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn loop_a_damaged_file_system_is_neither_mounted_nor_formatted() {
    let Some(machine) = Machine::start() else { return };
    for (number, fstype) in (1..).zip(["ext4", "xfs", "btrfs"]) {
        let disk = machine.disk(number, SIZE);
        machine.stage(&disk, mounted(fstype)).await.unwrap();
        let staging_path = machine.staging_path(&disk);
        for file in 0..200 {
            fs::write(staging_path.join(format!("file-{file}")), "content").unwrap();
        }
        machine.unstage(&disk).await.unwrap();
        let mut device = OpenOptions::new().read(true).write(true).open(&disk.device).unwrap();
        match fstype {
            // Group descriptors, bitmaps and the first inodes, and the copies of the descriptors.
            "ext4" => {
                for group in [0, 1, 3] {
                    device.write_all_at(&vec![0xaa; 2 << 20], (group * 128 * MIB) + 4096).unwrap();
                }
            }
            // The headers of the first allocation group.
            "xfs" => device.write_all_at(&[0xaa; 1536], 512).unwrap(),
            // Everything but the superblocks.
            _ => {
                let mut superblock = vec![0; 4096];
                device.seek(SeekFrom::Start(64 << 10)).unwrap();
                device.read_exact(&mut superblock).unwrap();
                for chunk in 1..128 {
                    device.write_all_at(&vec![0xaa; 1 << 20], chunk * MIB).unwrap();
                }
                device.write_all_at(&superblock, 64 << 20).unwrap();
            }
        }
        device.sync_all().unwrap();
        drop(device);
        let error = machine.stage(&disk, mounted(fstype)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState, "{fstype}: {error}");
        assert!(error.to_string().contains("damaged") || error.to_string().contains("refused"), "{fstype}: {error}");
        assert_eq!(machine.mounts(&staging_path), []);
        assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test]
async fn loop_small_damage_of_ext4_is_repaired() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    machine.stage(&disk, mounted("ext4")).await.unwrap();
    fs::write(machine.staging_path(&disk).join("file"), "content").unwrap();
    machine.unstage(&disk).await.unwrap();
    must("debugfs", &["-w", "-R", "set_super_value state 2", disk.device.to_str().unwrap()]);
    must("debugfs", &["-w", "-R", "set_super_value free_blocks_count 7", disk.device.to_str().unwrap()]);
    machine.stage(&disk, mounted("ext4")).await.unwrap();
    assert_eq!(fs::read_to_string(machine.staging_path(&disk).join("file")).unwrap(), "content");
}

#[tokio::test]
async fn loop_a_file_system_that_shut_down_is_reported_and_mounted_anew() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    machine.stage(&disk, mounted("xfs")).await.unwrap();
    machine.publish(&disk, "one", mounted("xfs")).await.unwrap();
    let (staging_path, target) = (machine.staging_path(&disk), machine.target_path(&disk, "one"));
    if !run("xfs_io", &["-x", "-c", "shutdown", staging_path.to_str().unwrap()]).0 {
        println!("skipped: xfs_io does not shut an XFS down here");
        return;
    }
    let problems = machine.node.health(&call(), &disk.id, Some(&target), None).await.unwrap();
    assert!(problems.iter().all(|problem| problem.reason == "FilesystemShutDown"), "{problems:?}");
    assert_eq!(problems.len(), 2);
    let error = machine.publish(&disk, "two", mounted("xfs")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(!machine.target_path(&disk, "two").exists());
    machine.unpublish(&disk, "one").await.unwrap();
    machine.stage(&disk, mounted("xfs")).await.unwrap();
    machine.publish(&disk, "one", mounted("xfs")).await.unwrap();
    fs::write(target.join("file"), "alive").unwrap();
    assert_eq!(machine.node.health(&call(), &disk.id, Some(&target), None).await.unwrap(), []);
}

#[tokio::test]
async fn loop_a_file_system_that_the_kernel_made_read_only_is_reported() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    machine.stage(&disk, mounted_with(Some("ext4"), &["errors=remount-ro"])).await.unwrap();
    let name = disk.device.file_name().unwrap().to_str().unwrap();
    let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
    if let Err(error) = fs::write(&trigger, "test") {
        println!("skipped: {}: {error}", trigger.display());
        return;
    }
    let problems = machine.node.health(&call(), &disk.id, None, None).await.unwrap();
    let reasons: Vec<_> = problems.iter().map(|problem| (problem.reason, problem.severity)).collect();
    let degraded = Severity::Degraded;
    assert_eq!(reasons, [("FilesystemReadOnly", degraded), ("FilesystemErrors", degraded)], "{problems:?}");
}

#[tokio::test]
async fn loop_a_lost_mount_and_a_lost_device_are_reported() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    let error = machine.node.health(&call(), &disk.id, None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    machine.stage(&disk, mounted("ext4")).await.unwrap();
    unmount(&machine.staging_path(&disk));
    let reasons = |problems: Vec<fuxi_csi::model::Health>| -> Vec<_> {
        problems.into_iter().map(|problem| problem.reason).collect()
    };
    let problems = machine.node.health(&call(), &disk.id, None, None).await.unwrap();
    assert_eq!(reasons(problems), ["MountLost"]);
    machine.detach(&disk);
    let problems = machine.node.health(&call(), &disk.id, None, None).await.unwrap();
    assert_eq!(reasons(problems), ["DeviceGone", "MountLost"]);
    machine.unstage(&disk).await.unwrap();
    assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn loop_after_a_reboot_a_volume_is_staged_again_as_another_device() {
    let Some(mut machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    machine.stage(&disk, mounted("btrfs")).await.unwrap();
    fs::write(machine.staging_path(&disk).join("file"), "kept").unwrap();
    unmount(&machine.staging_path(&disk));
    let other = machine.disk(2, SIZE);
    let disk = machine.reattach(1, &disk);
    machine.restart();
    let error = machine.publish(&disk, "one", mounted("btrfs")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    machine.stage(&disk, mounted("btrfs")).await.unwrap();
    machine.stage(&other, mounted("ext4")).await.unwrap();
    assert_eq!(fs::read_to_string(machine.staging_path(&disk).join("file")).unwrap(), "kept");
    machine.publish(&disk, "one", mounted("btrfs")).await.unwrap();
}

#[tokio::test]
async fn loop_a_driver_killed_at_any_moment_of_staging_goes_on_where_it_was() {
    let Some(mut machine) = Machine::start() else { return };
    let mut number = 0;
    for fstype in FILESYSTEMS {
        for delay in (0..60).step_by(4) {
            number += 1;
            let disk = machine.disk(number, SIZE);
            // A future that is dropped stops where it is, without undoing, and its programs are killed: as in a crash.
            let killed =
                tokio::time::timeout(Duration::from_millis(delay), machine.stage(&disk, mounted(fstype))).await;
            machine.restart();
            stage_when_idle(&machine, &disk, fstype)
                .await
                .unwrap_or_else(|error| panic!("{fstype}, killed after {delay} ms ({killed:?}): {error}"));
            let staging_path = machine.staging_path(&disk);
            assert_eq!(machine.mounts(&staging_path).len(), 1, "{fstype} {delay}");
            fs::write(staging_path.join("file"), "x").unwrap();
            machine.unstage(&disk).await.unwrap();
            assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new(), "{fstype} {delay}");
            machine.detach(&disk);
            fs::remove_file(&disk.image).unwrap();
        }
    }
}

/// Stages, again while the device is busy: what runs on a thread of its own, a mount, goes on in this process, unlike in
/// a crash.
async fn stage_when_idle(machine: &Machine, disk: &Disk, fstype: &str) -> fuxi_csi::error::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match machine.stage(disk, mounted(fstype)).await {
            Err(error) if error.kind() == Kind::Busy && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result.map(drop),
        }
    }
}

#[tokio::test]
async fn loop_stacked_and_foreign_mounts_are_dealt_with() {
    let Some(machine) = Machine::start() else { return };
    let (one, two) = (machine.disk(1, SIZE), machine.disk(2, SIZE));
    for disk in [&one, &two] {
        machine.stage(disk, mounted("ext4")).await.unwrap();
    }
    let (staging_path, target) = (machine.staging_path(&one), machine.target_path(&one, "one"));
    fs::create_dir_all(&target).unwrap();
    for _ in 0..3 {
        must("mount", &["--bind", staging_path.to_str().unwrap(), target.to_str().unwrap()]);
    }
    machine.unpublish(&one, "one").await.unwrap();
    assert_eq!(machine.mounts(&target), []);
    assert!(!target.exists());

    fs::create_dir_all(&target).unwrap();
    must("mount", &["--bind", machine.staging_path(&two).to_str().unwrap(), target.to_str().unwrap()]);
    let error = machine.publish(&one, "one", mounted("ext4")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    let error = machine.node.stats(&call(), &one.id, &target).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "another volume is mounted there: {error}");

    let mut elsewhere = machine.stage_request(&one, mounted("ext4"));
    elsewhere.staging_path = machine.path("elsewhere");
    let error = machine.node.stage(&call(), &elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    machine.node.unstage(&call(), &one.id, &elsewhere.staging_path).await.unwrap();
    assert_eq!(machine.mounts(&staging_path).len(), 1, "unstaging another path leaves it where it is");
}

#[tokio::test]
async fn loop_paths_through_symbolic_links_are_the_same_place() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    fs::create_dir_all(machine.path("real")).unwrap();
    std::os::unix::fs::symlink("real", machine.path("link")).unwrap();
    let mut request = machine.stage_request(&disk, mounted("ext4"));
    for folder in ["link", "real", "link"] {
        request.staging_path = machine.path(folder).join("stage");
        machine.node.stage(&call(), &request).await.unwrap();
    }
    assert_eq!(machine.mounts(&machine.path("real/stage")).len(), 1);
    let mut publish = machine.publish_request(&disk, "one", mounted("ext4"));
    for folder in ["real", "link"] {
        publish.staging_path = machine.path(folder).join("stage");
        publish.target_path = machine.path(folder).join("target");
        machine.node.publish(&call(), &publish).await.unwrap();
    }
    assert_eq!(machine.mounts(&machine.path("real/target")).len(), 1);
    machine.node.unpublish(&call(), &disk.id, &machine.path("link/target")).await.unwrap();
    machine.node.unstage(&call(), &disk.id, &machine.path("link/stage")).await.unwrap();
    assert_eq!(machine.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn loop_mkfs_options_and_mount_options_arrive() {
    let Some(machine) = Machine::start() else { return };
    let disk = machine.disk(1, SIZE);
    let mut request = machine.stage_request(&disk, mounted_with(Some("ext4"), &["noatime", "errors=remount-ro"]));
    let context = [("cinder.fuxi.openstack.org/mkfs-options".to_owned(), "-L my-label -m 2".to_owned())];
    request.volume_context.extend(context);
    machine.node.stage(&call(), &request).await.unwrap();
    let mount = machine.mounts(&machine.staging_path(&disk)).remove(0);
    assert!(mount.options.contains(&"noatime".to_owned()), "{mount:?}");
    assert!(mount.super_options.contains(&"errors=remount-ro".to_owned()), "{mount:?}");
    let label = must("blkid", &["-p", "-o", "value", "-s", "LABEL", disk.device.to_str().unwrap()]);
    assert_eq!(label.trim(), "my-label");

    let other = machine.disk(2, SIZE);
    let error = machine.stage(&other, mounted_with(Some("ext4"), &["no-such-option"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("no-such-option"), "{error}");
    for (fstype, option) in [("ext4", "bind"), ("zfs", "noatime")] {
        let error = machine.stage(&other, mounted_with(Some(fstype), &[option])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
}
