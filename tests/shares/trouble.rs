//! What goes wrong under a mount.

use crate::world::{Protocol, World, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Stops the NFS server as long as it lives.
struct Hung(Pid);

impl Hung {
    fn server(world: &World) -> Self {
        let pid = Pid::from_raw(world.fact("nfs_server").parse().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn a_server_that_does_not_answer_holds_up_nothing_else_and_can_be_left() {
    let world = World::get().await;
    let node = &world.nodes[0];
    let (hangs, works) = (world.create(Protocol::Nfs).await, world.create(Protocol::Cephfs).await);
    world.use_on(&hangs, node, false).await;
    node.sh(&format!("echo mine >{}/file", hangs.target("pod")));
    let hung = Hung::server(&world);

    let begun = Instant::now();
    let error = node.size(&hangs).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "a look at a hung server took {:?}", begun.elapsed());
    let problems = node.health(&hangs).await;
    assert!(problems.iter().any(|problem| problem == "FilesystemHung"), "{problems:?}");
    world.use_on(&works, node, false).await;
    assert_eq!(node.size(&works).await.unwrap(), 1 << 30);
    world.leave(&works, node).await;

    let begun = Instant::now();
    node.hide(&hangs, "pod").await.unwrap();
    node.unstage(&hangs).await.unwrap();
    println!("left a server that does not answer within {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(40), "leaving a hung server took {:?}", begun.elapsed());
    assert_eq!(node.mounts_of(&hangs), "");
    drop(hung);
    // Manila itself waits for the server.
    world.unpublish(&hangs, node).await;

    world.use_on(&hangs, node, false).await;
    world.leave(&hangs, node).await;
    for share in [hangs, works] {
        world.delete(&share).await.unwrap();
    }
}

/// Whoever deletes a share that is mounted still finds a node that says so and can be cleared.
async fn a_share_deleted_under_its_mount_can_be_taken_away(protocol: Protocol) {
    let world = World::get().await;
    let node = &world.nodes[0];
    let share = world.create(protocol).await;
    world.use_on(&share, node, false).await;
    world.delete(&share).await.unwrap();
    until("the node says that something is wrong", Duration::from_secs(20), async || {
        !node.health(&share).await.is_empty()
    })
    .await;
    world.leave(&share, node).await;
    world.delete(&share).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn a_cephfs_share_deleted_under_its_mount_can_be_taken_away() {
    a_share_deleted_under_its_mount_can_be_taken_away(Protocol::Cephfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn an_nfs_share_deleted_under_its_mount_can_be_taken_away() {
    a_share_deleted_under_its_mount_can_be_taken_away(Protocol::Nfs).await;
}
