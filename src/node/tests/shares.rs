//! Shares: mounted once per node, shown to each workload, taken away again.

use super::world::{World, call, mounted, volume};
use crate::error::Kind;
use crate::model::{AccessKind, AccessMode, Capability, Connection, KIND_NFS};
use crate::node::StageRequest;
use crate::node::mount::Pulse;
use std::fs;

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
