//! What a node that starts makes of the records that it finds.

use super::world::{Mishap, World, call, mounted, raw};
use crate::error::Kind;
use crate::node::device::{Host, fake};
use std::fs;

/// The disk is gone, with all mounts: the machine was rebooted, and the volume detached meanwhile.
fn reboot_without_the_disk(world: &mut World) {
    let device = Host::below(world.root()).device("vdb").unwrap().unwrap();
    fake::remove_disk(&world.root(), &device);
    world.mounter.forget();
    world.restart();
}

fn records(world: &World) -> usize {
    fs::read_dir(world.root().join("plugin/volumes")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_volume_that_left_while_the_node_was_away_is_forgotten() {
    for capability in [mounted(), raw()] {
        let mut world = World::new();
        world.node.stage(&call(), &world.stage_request(capability)).await.unwrap();
        reboot_without_the_disk(&mut world);
        assert_eq!(records(&world), 1);
        assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 1);
        assert_eq!(records(&world), 0);
        assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 0);
        // The orchestrator may ask all the same.
        world.unstage().await.unwrap();
    }
}

#[tokio::test]
async fn a_volume_that_is_here_is_not_forgotten() {
    for capability in [mounted(), raw()] {
        let mut world = World::new();
        world.node.stage(&call(), &world.stage_request(capability.clone())).await.unwrap();
        world.restart();
        assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 0, "staged");
        world.mounter.forget();
        assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 0, "the disk is there");
        world.unstage().await.unwrap();
        assert_eq!(world.leftovers(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_dead_mount_keeps_the_record_for_unstaging() {
    let mut world = World::new();
    world.stage().await.unwrap();
    let device = Host::below(world.root()).device("vdb").unwrap().unwrap();
    fake::remove_disk(&world.root(), &device);
    world.restart();
    assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 0);
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_broken_off_mkfs_is_remembered_even_if_its_disk_is_away() {
    let mut world = World::new();
    for step in 0.. {
        world.steps.go_wrong_at(step, Mishap::Kill);
        let ended = world.until_killed(world.stage()).await;
        if world.steps.last() == "in mkfs" {
            break;
        }
        assert!(ended.is_none(), "there was no mkfs");
        world = World::new();
    }
    world.steps.go_well();
    reboot_without_the_disk(&mut world);
    assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 0);
    assert_eq!(records(&world), 1);
}

#[tokio::test]
async fn what_cannot_be_disconnected_is_kept_and_the_rest_goes_on() {
    let mut world = World::new();
    world.stage().await.unwrap();
    reboot_without_the_disk(&mut world);
    world.steps.go_wrong_at(0, Mishap::Fail);
    assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 0);
    assert_eq!(records(&world), 1);
    world.steps.go_well();
    let over = call();
    over.gone().cancel();
    assert_eq!(world.node.forget_what_is_gone(&over).await.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(world.node.forget_what_is_gone(&call()).await.unwrap(), 1);
}
