//! Every step of every operation fails once, and the driver is killed once at every step.

use super::world::{Mishap, SIZE, World, call, mounted, raw};
use crate::error::Result;
use crate::model::Capability;
use std::sync::atomic::Ordering;

/// More steps than any operation has.
const MANY: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Stage,
    Publish,
    Unpublish,
    Unstage,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Stage, Self::Publish, Self::Unpublish, Self::Unstage];

    async fn run(self, world: &World, capability: &Capability, read_only: bool) -> Result<()> {
        match self {
            Self::Stage => world.node.stage(&call(), &world.stage_request(capability.clone())).await,
            Self::Publish => world.node.publish(&call(), &world.publish_request(capability.clone(), read_only)).await,
            Self::Unpublish => world.unpublish().await,
            Self::Unstage => world.unstage().await,
        }
    }

    /// All operations before this one, as they go when nothing happens.
    async fn prepare(self, world: &World, capability: &Capability, read_only: bool) {
        for earlier in Self::ALL.into_iter().take_while(|operation| *operation != self) {
            earlier.run(world, capability, read_only).await.unwrap();
        }
    }
}

/// The mounts as they are to be seen: where, of which device, writable or not.
fn mounts(world: &World) -> Vec<(std::path::PathBuf, Option<String>, bool)> {
    world
        .mounter
        .mounted()
        .into_iter()
        .map(|entry| (entry.mount_point.clone(), entry.block.map(|number| number.to_string()), entry.is_read_only()))
        .map(|(path, block, read_only)| (path.strip_prefix(world.root()).unwrap().to_owned(), block, read_only))
        .collect()
}

async fn mishaps(mishap: Mishap, capability: Capability, read_only: bool) {
    for operation in Operation::ALL {
        let expected = World::new();
        operation.prepare(&expected, &capability, read_only).await;
        operation.run(&expected, &capability, read_only).await.unwrap();
        let mut is_through = false;
        for step in 0..MANY {
            let mut world = World::new();
            operation.prepare(&world, &capability, read_only).await;
            world.steps.go_wrong_at(step, mishap);
            let result = world.until_killed(operation.run(&world, &capability, read_only)).await;
            let at = format!("{operation:?} at step {step} ({})", world.steps.last());
            world.steps.go_well();
            if matches!(result, Some(Ok(()))) && world.steps.count() <= step {
                is_through = true;
                break;
            }
            if operation == Operation::Stage && matches!(result, Some(Err(_))) && !at.contains("disconnect") {
                // What failed has undone itself; only an mkfs that was begun is remembered.
                let left = world.leftovers();
                let remembers = at.contains("mkfs");
                assert!(left.is_empty() || (remembers && left.len() == 1), "{at}: {left:?}");
            }
            if mishap == Mishap::Kill {
                world.restart();
            }
            let repeated = operation.run(&world, &capability, read_only).await;
            assert!(repeated.is_ok(), "{at}: repeated: {}", repeated.unwrap_err());
            assert_eq!(mounts(&world), mounts(&expected), "{at}");
            assert_eq!(world.is_connected(), expected.is_connected(), "{at}");
            assert_eq!(world.leftovers().len(), expected.leftovers().len(), "{at}: {:?}", world.leftovers());
            // And the way to the end is open.
            for later in [Operation::Unpublish, Operation::Unstage] {
                later.run(&world, &capability, read_only).await.unwrap();
            }
            assert_eq!(world.leftovers(), Vec::<String>::new(), "{at}");
        }
        assert!(is_through, "{operation:?} has more than {MANY} steps");
    }
}

#[tokio::test]
async fn a_mounted_volume_survives_a_failure_at_every_step() {
    mishaps(Mishap::Fail, mounted(), false).await;
}

#[tokio::test]
async fn a_mounted_volume_survives_a_kill_at_every_step() {
    mishaps(Mishap::Kill, mounted(), false).await;
}

#[tokio::test]
async fn a_read_only_publication_survives_a_failure_at_every_step() {
    mishaps(Mishap::Fail, mounted(), true).await;
}

#[tokio::test]
async fn a_read_only_publication_survives_a_kill_at_every_step() {
    mishaps(Mishap::Kill, mounted(), true).await;
}

#[tokio::test]
async fn a_raw_volume_survives_a_failure_at_every_step() {
    mishaps(Mishap::Fail, raw(), false).await;
}

#[tokio::test]
async fn a_raw_volume_survives_a_kill_at_every_step() {
    mishaps(Mishap::Kill, raw(), false).await;
}

/// A world whose driver was killed in the middle of mkfs.
async fn killed_in_mkfs(world: World) -> World {
    for step in 0..MANY {
        world.steps.go_wrong_at(step, Mishap::Kill);
        assert!(world.until_killed(world.stage()).await.is_none());
        if world.steps.last() == "in mkfs" {
            break;
        }
    }
    assert_eq!(world.steps.last(), "in mkfs");
    world.steps.go_well();
    world
}

/// Staging refuses to make the file system again.
async fn gives_no_right(world: &World) {
    let formats = || world.exec.ran().iter().filter(|line| line.starts_with("mkfs")).count();
    let before = formats();
    let error = world.stage().await.unwrap_err();
    assert!(error.to_string().contains("not certain that it is blank"), "{error}");
    assert_eq!(formats(), before);
}

#[tokio::test]
async fn an_unfinished_mkfs_gives_no_right_to_another_disk() {
    let world = killed_in_mkfs(World::new()).await;
    *world.connector.replaced_at_look.lock().unwrap() = Some(0);
    gives_no_right(&world).await;
}

#[tokio::test]
async fn an_unfinished_mkfs_gives_no_right_after_a_reboot() {
    // The kernel counts disks anew at each start: the same count may be another disk, or this one after others had it.
    let mut world = killed_in_mkfs(World::new()).await;
    world.boot("another");
    world.restart();
    gives_no_right(&world).await;
    gives_no_right(&world).await;
}

#[tokio::test]
async fn an_unfinished_mkfs_gives_no_right_where_nothing_tells_disks_apart() {
    let world = killed_in_mkfs(World::new()).await;
    world.boot("");
    gives_no_right(&world).await;
    let world = World::new();
    world.connector.counts_disks.store(false, Ordering::SeqCst);
    let world = killed_in_mkfs(world).await;
    gives_no_right(&world).await;
}

/// A volume that is larger than its file system: it grew while it was detached, or was made of a smaller snapshot.
async fn larger_than_its_file_system() -> World {
    let world = World::new();
    world.stage().await.unwrap();
    world.unstage().await.unwrap();
    *world.connector.size.lock().unwrap() = 2 * SIZE;
    world
}

/// One that grew while the machine was away: its disk and its record are here as they were, and nothing is mounted.
async fn larger_after_a_reboot() -> World {
    let mut world = World::new();
    world.stage().await.unwrap();
    *world.connector.size.lock().unwrap() = 2 * SIZE;
    world.mounter.forget();
    world.restart();
    world
}

/// Stages with a mishap at every step; whatever the step, the next call ends with a file system as large as its device.
async fn growing_survives(mishap: Mishap, prepare: impl AsyncFn() -> World) {
    for step in 0..MANY {
        let mut world = prepare().await;
        world.steps.go_wrong_at(step, mishap);
        let result = world.until_killed(world.stage()).await;
        let at = format!("step {step} ({})", world.steps.last());
        world.steps.go_well();
        let is_through = matches!(result, Some(Ok(()))) && world.steps.count() <= step;
        if mishap == Mishap::Kill {
            world.restart();
        }
        world.stage().await.unwrap();
        assert_eq!(world.filesystem_size(), 2 * SIZE, "{at}");
        assert_eq!(world.mounts_at(&world.staging_path()).len(), 1, "{at}");
        world.publish(false).await.unwrap();
        world.unpublish().await.unwrap();
        world.unstage().await.unwrap();
        assert_eq!(world.leftovers(), Vec::<String>::new(), "{at}");
        if is_through {
            assert!(world.exec.has_run("resize2fs"));
            return;
        }
    }
    panic!("staging has more than {MANY} steps");
}

#[tokio::test]
async fn growing_survives_a_kill_at_every_step() {
    growing_survives(Mishap::Kill, larger_than_its_file_system).await;
}

#[tokio::test]
async fn growing_survives_a_failure_at_every_step() {
    growing_survives(Mishap::Fail, larger_than_its_file_system).await;
}

#[tokio::test]
async fn growing_after_a_reboot_survives_a_kill_at_every_step() {
    growing_survives(Mishap::Kill, larger_after_a_reboot).await;
}

#[tokio::test]
async fn growing_after_a_reboot_survives_a_failure_at_every_step() {
    growing_survives(Mishap::Fail, larger_after_a_reboot).await;
}

#[tokio::test]
async fn staging_again_leaves_what_is_in_use_alone() {
    let mut world = World::new();
    world.stage().await.unwrap();
    world.publish(false).await.unwrap();
    let mounts = world.mounter.mounted();
    let ran = world.exec.ran();
    world.restart();
    world.stage().await.unwrap();
    assert_eq!(world.mounter.mounted(), mounts);
    assert_eq!(world.exec.ran(), ran);
}
