//! Shares: mounted once per node, shown to each workload, taken away again.

use super::world::{World, call, mounted, volume};
use crate::error::Kind;
use crate::exec::Output;
use crate::model::{AccessKind, AccessMode, Capability, Connection, KIND_NFS};
use crate::node::StageRequest;
use crate::node::fuse;
use crate::node::mount::options::MountOptions;
use crate::node::mount::{Mount, Mounter, Pulse};
use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

fn nfs(world: &World) -> StageRequest {
    let capability = Capability {
        mode: AccessMode::MultiNodeMultiWriter,
        // What an orchestrator says that knows of one file system only.
        kind: AccessKind::Mount { fstype: Some("ext4".to_owned()), options: vec!["noatime".to_owned()], group: None },
    };
    let connection = Connection {
        kind: KIND_NFS.to_owned(),
        data: serde_json::json!({"server": "10.0.0.1", "path": "/shares/a"}),
        size: None,
        read_only: false,
        sealed: None,
    };
    StageRequest { connection, capability, ..world.stage_request(mounted()) }
}

#[tokio::test]
async fn a_share_is_mounted_once_and_shown_to_each_workload() {
    let world = World::new();
    let request = nfs(&world);
    for _ in 0..2 {
        world.node.stage(&call(), &request).await.unwrap();
    }
    let staged = world.mounts_at(&world.staging_path());
    assert_eq!(staged.len(), 1);
    assert_eq!((staged[0].fstype.as_str(), staged[0].source.to_str().unwrap()), ("nfs", "10.0.0.1:/shares/a"));
    for _ in 0..2 {
        world.node.publish(&call(), &world.publish_request(request.capability.clone(), true)).await.unwrap();
    }
    assert!(world.mounts_at(&world.target_path())[0].is_read_only());
    world.node.stats(&call(), &volume(), &world.target_path()).await.unwrap();
    assert_eq!(world.node.health(&call(), &volume(), Some(&world.target_path()), None).await.unwrap(), []);
    world.unpublish().await.unwrap();
    for _ in 0..2 {
        world.unstage().await.unwrap();
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn the_file_systems_own_program_mounts_it_where_it_is_installed() {
    let world = World::new();
    world.exec.always("mount.nfs", 32, "", "mount.nfs: access denied by server");
    let error = world.node.stage(&call(), &nfs(&world)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("access denied by server"), "{error}");
    let line = format!("mount.nfs 10.0.0.1:/shares/a {} -o noatime", world.staging_path().display());
    assert!(world.exec.ran().contains(&line), "{:?}", world.exec.ran());
    assert!(world.mounts_at(&world.staging_path()).is_empty());
    assert_eq!(world.leftovers(), Vec::<String>::new(), "what failed leaves nothing");
}

#[tokio::test]
async fn a_share_whose_server_is_gone_is_taken_away_all_the_same() {
    let world = World::new();
    world.node.stage(&call(), &nfs(&world)).await.unwrap();
    world.mounter.set_pulse(&world.staging_path(), Pulse::Hung);
    let problems = world.node.health(&call(), &volume(), None, None).await.unwrap();
    assert_eq!(problems.first().map(|problem| problem.reason), Some("FilesystemHung"));
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn no_record_holds_a_ceph_key() {
    let world = World::new();
    let mut request = nfs(&world);
    request.connection.kind = "cephfs".to_owned();
    request.connection.data = serde_json::json!({"monitors": "10.0.0.1:6789", "path": "/v", "user": "csi-n"});
    request.secrets.insert("key".to_owned(), "QUJDgeheim==".to_owned().into());
    request.volume_context.insert("cephfs-kernelMountOptions".to_owned(), "nodiratime".to_owned());
    world.node.stage(&call(), &request).await.unwrap();
    assert_eq!(world.mounts_at(&world.staging_path())[0].fstype, "ceph");
    for record in fs::read_dir(world.root().join("plugin/volumes")).unwrap() {
        let text = fs::read_to_string(record.unwrap().path()).unwrap();
        assert!(!text.contains("geheim"), "{text}");
    }
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_staged_read_only_is_published_again_although_the_workload_did_not_ask_for_that() {
    let world = World::new();
    let mut request = nfs(&world);
    request.connection.read_only = true;
    world.node.stage(&call(), &request).await.unwrap();
    for _ in 0..3 {
        world.node.publish(&call(), &world.publish_request(request.capability.clone(), false)).await.unwrap();
    }
    let published = world.mounts_at(&world.target_path());
    assert_eq!(published.len(), 1);
    assert!(published[0].is_read_only());
    world.unpublish().await.unwrap();
    world.unstage().await.unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

/// A ceph-fuse that mounts what it is told.
fn install_ceph_fuse(world: &World) {
    let (mounter, target) = (world.mounter.clone(), world.staging_path());
    world.exec.does(fuse::PROGRAM, move |command| {
        let line = command.to_string();
        let options = line.split_once(" -o ").map_or("", |(_, options)| options);
        let mount = Mount {
            source: PathBuf::from("ceph-fuse"),
            target: target.clone(),
            fstype: fuse::FSTYPE.to_owned(),
            options: MountOptions::parse(options.split(',').filter(|word| *word == "ro")).unwrap(),
            secret: None,
        };
        let call = call();
        let mounted = pin!(mounter.mount(&call, &mount)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(mounted, Poll::Ready(Ok(()))), "{mounted:?}");
        Ok(Output::of(command, 0, "", ""))
    });
}

fn ceph(world: &World) -> StageRequest {
    let mut request = nfs(world);
    request.connection.kind = "cephfs".to_owned();
    request.connection.data = serde_json::json!({"monitors": "10.0.0.1:6789", "path": "/v", "user": "csi-n"});
    request.secrets.insert("key".to_owned(), "QUJDgeheim==".to_owned().into());
    request
}

#[tokio::test]
async fn ceph_fuse_mounts_read_only_wherever_that_is_asked_for_and_stages_again() {
    for place in ["fuse", "kernel", "class", "connection", "nowhere"] {
        let world = World::new();
        install_ceph_fuse(&world);
        let mut request = ceph(&world);
        request.volume_context.insert("cephfs-mounter".to_owned(), "fuse".to_owned());
        match place {
            "fuse" => drop(request.volume_context.insert("cephfs-fuseMountOptions".to_owned(), "debug,ro".to_owned())),
            "kernel" => drop(request.volume_context.insert("cephfs-kernelMountOptions".to_owned(), "ro".to_owned())),
            "class" => {
                let kind = AccessKind::Mount { fstype: None, options: vec!["ro".to_owned()], group: None };
                request.capability.kind = kind;
            }
            "connection" => request.connection.read_only = true,
            _ => {}
        }
        for _ in 0..2 {
            world.node.stage(&call(), &request).await.unwrap();
            let staged = world.mounts_at(&world.staging_path());
            assert_eq!(staged.len(), 1, "{place}");
            assert_eq!(staged[0].is_read_only(), place != "nowhere", "{place}");
        }
    }
}

#[tokio::test]
async fn a_key_that_a_killed_driver_left_goes_at_its_start_and_with_the_volume() {
    let world = World::new();
    let key = world.root().join("plugin/keys").join(volume().as_str());
    let leave = || {
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(&key, "QUJDgeheim==").unwrap();
    };
    leave();
    world.node.forget_what_is_gone(&call()).await.unwrap();
    assert!(!key.exists());
    world.node.stage(&call(), &ceph(&world)).await.unwrap();
    leave();
    world.unstage().await.unwrap();
    assert!(!key.exists());
}
