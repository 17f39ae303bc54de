//! What publishing refuses, and what it leaves.

use super::world::{SIZE, World, call, mounted, raw, volume};
use crate::error::Kind;
use crate::model::{AccessMode, Capability};
use crate::node::mount::{Mounter, Pulse};
use crate::node::{PublishRequest, Usage};
use std::fs;

#[tokio::test]
async fn publishing_twice_mounts_once() {
    for read_only in [false, true] {
        let world = World::new();
        world.stage().await.unwrap();
        for _ in 0..3 {
            world.publish(read_only).await.unwrap();
        }
        let mounts = world.mounts_at(&world.target_path());
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].is_read_only(), read_only);
        assert_eq!(world.mounter.mounted().len(), 2, "nothing beside the staged and the published mount");
        for _ in 0..2 {
            world.unpublish().await.unwrap();
        }
        assert!(!world.target_path().exists());
    }
}

#[tokio::test]
async fn publishing_in_another_way_is_a_conflict() {
    for read_only in [false, true] {
        let world = World::new();
        world.stage().await.unwrap();
        world.publish(read_only).await.unwrap();
        assert_eq!(world.publish(!read_only).await.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(world.mounts_at(&world.target_path())[0].is_read_only(), read_only, "and leaves what is there");
    }
}

#[tokio::test]
async fn a_single_writer_gets_no_second_place() {
    for kind in [mounted(), raw()] {
        let world = World::new();
        let single = Capability { mode: AccessMode::SingleNodeSingleWriter, ..kind };
        world.node.stage(&call(), &world.stage_request(single.clone())).await.unwrap();
        let first = world.publish_request(single, false);
        let second = PublishRequest { target_path: world.root().join("pods/other"), ..first.clone() };
        for _ in 0..2 {
            world.node.publish(&call(), &first).await.unwrap();
            let error = world.node.publish(&call(), &second).await.unwrap_err();
            assert_eq!(error.kind(), Kind::WrongState, "{error}");
            assert!(error.to_string().contains(first.target_path.to_str().unwrap()), "{error}");
            assert!(!second.target_path.exists());
        }
        world.unpublish().await.unwrap();
        world.node.publish(&call(), &second).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_staged_is_not_published() {
    let world = World::new();
    let error = world.publish(false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(error.to_string().contains("stage it first"), "{error}");
    assert!(!world.target_path().exists());
    world.stage().await.unwrap();
    let error = world.node.publish(&call(), &world.publish_request(raw(), false)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    let mut request = world.publish_request(mounted(), false);
    request.staging_path = world.root().join("elsewhere");
    assert_eq!(world.node.publish(&call(), &request).await.unwrap_err().kind(), Kind::WrongState);
    world.mounter.set_pulse(&world.staging_path(), Pulse::Dead);
    assert_eq!(world.publish(false).await.unwrap_err().kind(), Kind::WrongState);
    assert!(!world.target_path().exists());
}

#[tokio::test]
async fn a_failed_publication_leaves_no_target() {
    let world = World::new();
    world.stage().await.unwrap();
    world.mounter.set_refused(&world.target_path(), true);
    for read_only in [false, true] {
        assert!(world.publish(read_only).await.is_err());
        assert!(!world.target_path().exists());
        assert_eq!(world.mounter.mounted().len(), 1);
    }
}

#[tokio::test]
async fn a_target_with_content_is_not_removed() {
    let world = World::new();
    fs::create_dir_all(world.target_path()).unwrap();
    fs::write(world.target_path().join("file"), "of somebody").unwrap();
    let error = world.unpublish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState, "{error}");
    assert!(world.target_path().join("file").exists());
}

#[tokio::test]
async fn a_raw_device_is_published_once_and_has_a_size() {
    let world = World::new();
    world.node.stage(&call(), &world.stage_request(raw())).await.unwrap();
    for _ in 0..3 {
        world.node.publish(&call(), &world.publish_request(raw(), false)).await.unwrap();
    }
    assert_eq!(world.mounts_at(&world.target_path()).len(), 1);
    assert!(world.target_path().is_file());
    let stats = world.node.stats(&call(), &volume(), &world.target_path()).await.unwrap();
    assert_eq!(stats.bytes, Usage { total: SIZE, available: 0, used: 0 });
    assert_eq!(world.unstage().await.unwrap_err().kind(), Kind::Busy);
    world.unpublish().await.unwrap();
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_raw_device_that_is_gone_or_another_is_not_published() {
    let world = World::new();
    world.node.stage(&call(), &world.stage_request(raw())).await.unwrap();
    world.mounter.set_device(&world.disk(), Some("252:32".parse().unwrap()));
    let request = world.publish_request(raw(), false);
    assert_eq!(world.node.publish(&call(), &request).await.unwrap_err().kind(), Kind::WrongState);
    assert!(!world.target_path().exists());
}

#[tokio::test]
async fn statistics_are_those_of_the_volume_or_none() {
    let world = World::new();
    let nothing = world.node.stats(&call(), &volume(), &world.staging_path()).await.unwrap_err();
    assert_eq!(nothing.kind(), Kind::NotFound);
    world.stage().await.unwrap();
    assert_eq!(world.node.stats(&call(), &volume(), &world.staging_path()).await.unwrap().bytes.total, 100);
    let other = world.root().join("other");
    fs::create_dir(&other).unwrap();
    world.mounter.bind(&call(), &world.root(), &other).await.unwrap();
    assert_eq!(world.node.stats(&call(), &volume(), &other).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn health_tells_what_is_wrong() {
    let world = World::new();
    let health = || async {
        let problems = world.node.health(&call(), &volume(), Some(&world.target_path()), None).await?;
        Ok::<_, crate::error::Error>(problems.into_iter().map(|problem| problem.reason).collect::<Vec<_>>())
    };
    assert_eq!(health().await.unwrap_err().kind(), Kind::NotFound);
    world.stage().await.unwrap();
    world.publish(false).await.unwrap();
    assert_eq!(health().await.unwrap(), Vec::<&str>::new());
    world.mounter.fail_to_read_only(&world.staging_path());
    assert_eq!(health().await.unwrap(), ["FilesystemReadOnly"]);
    world.mounter.set_pulse(&world.target_path(), Pulse::Hung);
    world.mounter.set_pulse(&world.staging_path(), Pulse::Dead);
    assert_eq!(health().await.unwrap(), ["FilesystemShutDown", "FilesystemHung"]);
    world.unpublish().await.unwrap();
    assert_eq!(health().await.unwrap(), ["FilesystemShutDown", "MountLost"]);
    *world.connector.replaced_at_look.lock().unwrap() = Some(0);
    assert_eq!(health().await.unwrap()[0], "DeviceReplaced");
}
