//! What staging refuses, and what it leaves.

use super::world::{SIZE, World, call, mounted, raw};
use crate::error::Kind;
use crate::exec::Output;
use crate::model::{AccessKind, AccessMode, Bytes, Capability};
use crate::node::device::fake;
use crate::node::mount::Pulse;
use std::fs;
use std::path::Path;

/// Nothing was formatted or mounted, and nothing is left.
fn assert_untouched(world: &World) {
    assert!(!world.exec.has_run("mkfs"), "{:?}", world.exec.ran());
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_blank_volume_is_formatted_and_mounted_once() {
    let world = World::new();
    for _ in 0..3 {
        world.stage().await.unwrap();
    }
    assert_eq!(world.exec.ran().iter().filter(|line| line.starts_with("mkfs.ext4")).count(), 1);
    assert_eq!(world.mounts_at(&world.staging_path()).len(), 1);
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
    world.stage().await.unwrap();
    assert_eq!(world.exec.ran().iter().filter(|line| line.starts_with("mkfs.ext4")).count(), 1, "only while blank");
}

#[tokio::test]
async fn a_device_smaller_than_promised_or_of_no_size_gets_no_mkfs() {
    for size in [0, 512, SIZE - 512] {
        let world = World::new();
        *world.connector.size.lock().unwrap() = size;
        assert_eq!(world.stage().await.unwrap_err().kind(), Kind::WrongState, "{size}");
        assert_untouched(&world);
    }
}

#[tokio::test]
async fn a_device_that_is_replaced_before_mkfs_gets_none() {
    let world = World::new();
    // The first look is that of the connection, the second the proof right before mkfs.
    *world.connector.replaced_at_look.lock().unwrap() = Some(1);
    let error = world.stage().await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("replaced"), "{error}");
    assert_untouched(&world);
}

#[tokio::test]
async fn a_device_that_vanishes_before_mkfs_gets_none() {
    let world = World::new();
    let root = world.root();
    world.exec.does("blkid -p", move |command| {
        // Gone after the look, before the format.
        let device = crate::node::device::Host::below(&root).device("vdb").unwrap().unwrap();
        let answer = Output::of(command, 2, "", "");
        fs::remove_dir_all(crate::node::device::Host::below(&root).sysfs(&device.name)).unwrap();
        Ok(answer)
    });
    let error = world.stage().await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_untouched(&world);
}

#[tokio::test]
async fn a_node_that_is_another_device_than_the_kernel_says_gets_no_mkfs() {
    let world = World::new();
    world.mounter.set_device(&world.disk(), Some("252:32".parse().unwrap()));
    let error = world.stage().await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert_untouched(&world);
    world.mounter.set_device(&world.disk(), None);
    assert_eq!(world.stage().await.unwrap_err().kind(), Kind::WrongState);
    assert_untouched(&world);
}

#[tokio::test]
async fn an_unreadable_or_contradictory_device_gets_no_mkfs() {
    for (code, words) in [(1, "exit code 1"), (4, "exit code 4"), (8, "contradict"), (0, "does not name it")] {
        let world = World::new();
        world.exec.always("blkid -p", code, "", "I/O error");
        let error = world.stage().await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_untouched(&world);
    }
    let world = World::new();
    let disk = world.disk();
    world.exec.does("blkid -p", move |command| {
        // A short device: the kernel promised more.
        fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(SIZE / 2).unwrap();
        Ok(Output::of(command, 2, "", ""))
    });
    let error = world.stage().await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    assert_untouched(&world);
}

#[tokio::test]
async fn data_without_a_signature_and_foreign_signatures_get_no_mkfs() {
    let world = World::new();
    world.write(3 << 20, b"somebody's data");
    let error = world.stage().await.unwrap_err();
    assert!(error.to_string().contains("byte 3145728"), "{error}");
    assert_untouched(&world);
    for (answer, words) in [
        ("TYPE=xfs\nUSAGE=filesystem\n", "type xfs"),
        ("PTTYPE=gpt\n", "partition table"),
        ("TYPE=crypto_LUKS\nUSAGE=crypto\n", "crypto_LUKS"),
        ("TYPE=LVM2_member\nUSAGE=raid\n", "LVM2_member"),
    ] {
        let world = World::new();
        world.exec.always("blkid -p", 0, answer, "");
        let error = world.stage().await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_untouched(&world);
    }
}

#[tokio::test]
async fn a_missing_program_is_no_reason_to_format() {
    let world = World::new();
    world.exec.does("blkid", |_| Err(crate::error::Error::wrong_state("program blkid is not on this node")));
    assert_eq!(world.stage().await.unwrap_err().kind(), Kind::WrongState);
    assert_untouched(&world);
}

#[tokio::test]
async fn a_damaged_file_system_is_refused_and_nothing_is_left() {
    let world = World::new();
    world.stage().await.unwrap();
    world.unstage().await.unwrap();
    world.exec.always("e2fsck", 4, "", "UNEXPECTED INCONSISTENCY");
    let error = world.stage().await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("UNEXPECTED INCONSISTENCY"), "{error}");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_system_smaller_than_its_device_is_grown() {
    let world = World::new();
    world.stage().await.unwrap();
    world.unstage().await.unwrap();
    *world.connector.size.lock().unwrap() = 2 * SIZE;
    world.stage().await.unwrap();
    assert!(world.exec.has_run("resize2fs"));
    assert_eq!(world.expand(&world.staging_path(), 2 * SIZE).await.unwrap(), Bytes::new(2 * SIZE));
}

#[tokio::test]
async fn a_file_system_that_did_not_grow_is_an_error_not_a_success() {
    let world = World::new();
    world.stage().await.unwrap();
    fake::add_disk(&world.root(), "vdb", 16, 2 * SIZE, None);
    world.exec.always("resize2fs", 0, "", "");
    let error = world.expand(&world.staging_path(), 2 * SIZE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal, "{error}");
    world.exec.always("resize2fs", 1, "", "Permission denied to resize filesystem");
    let error = world.expand(&world.staging_path(), 2 * SIZE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    let error = world.expand(&world.staging_path(), 3 * SIZE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let error = world.expand(Path::new("/nowhere/at/all"), SIZE).await.map(drop);
    assert!(error.is_err(), "the staging path is mounted, and the growth is not done");
}

#[tokio::test]
async fn staging_in_another_way_is_a_conflict() {
    let world = World::new();
    world.stage().await.unwrap();
    let error = world.node.stage(&call(), &world.stage_request(raw())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    let xfs = AccessKind::Mount { fstype: Some("xfs".to_owned()), options: Vec::new(), group: None };
    let request = world.stage_request(Capability { kind: xfs, ..mounted() });
    assert_eq!(world.node.stage(&call(), &request).await.unwrap_err().kind(), Kind::Conflict);
    let request = world.stage_request(Capability { mode: AccessMode::MultiNodeReaderOnly, ..mounted() });
    assert_eq!(world.node.stage(&call(), &request).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(world.mounts_at(&world.staging_path()).len(), 1, "and leaves what is staged");
    assert!(world.is_connected());
}

#[tokio::test]
async fn a_mount_whose_device_is_gone_is_replaced() {
    let world = World::new();
    world.stage().await.unwrap();
    let device = crate::node::device::Host::below(world.root()).device("vdb").unwrap().unwrap();
    fs::remove_dir_all(crate::node::device::Host::below(world.root()).sysfs("vdb")).unwrap();
    fs::remove_file(world.root().join("sys/dev/block").join(device.number.to_string())).unwrap();
    world.mounter.set_busy(&world.staging_path(), true);
    world.stage().await.unwrap();
    assert_eq!(world.mounts_at(&world.staging_path()).len(), 1);
    world.mounter.set_busy(&world.staging_path(), false);
    world.mounter.set_pulse(&world.staging_path(), Pulse::Dead);
    world.mounter.set_busy(&world.staging_path(), true);
    assert_eq!(world.stage().await.unwrap_err().kind(), Kind::Busy, "a dead mount in use is not pulled away");
}

#[tokio::test]
async fn a_broken_record_stops_everything_that_would_have_to_guess() {
    let world = World::new();
    world.stage().await.unwrap();
    let record = world.root().join("plugin/volumes").join(format!("{}.json", super::world::VOLUME));
    fs::write(&record, "{").unwrap();
    for error in [world.stage().await, world.unstage().await, world.publish(false).await] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState);
        assert!(error.to_string().contains(record.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn unstaging_what_is_not_there_is_success_and_what_is_in_use_is_not() {
    let world = World::new();
    world.unstage().await.unwrap();
    world.stage().await.unwrap();
    world.mounter.set_busy(&world.staging_path(), true);
    assert_eq!(world.unstage().await.unwrap_err().kind(), Kind::Busy);
    assert!(world.is_connected(), "nothing is disconnected under a mount");
    world.mounter.set_busy(&world.staging_path(), false);
    world.publish(false).await.unwrap();
    assert_eq!(world.unstage().await.unwrap_err().kind(), Kind::Busy);
    assert!(world.is_connected());
    world.unpublish().await.unwrap();
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_call_that_is_over_starts_nothing() {
    let world = World::new();
    let call = call();
    call.gone().cancel();
    let error = world.node.stage(&call, &world.stage_request(mounted())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert_untouched(&world);
}
