//! Who gets in: the nodes that a share is published to, as long as it is, and nobody else.

use crate::world::{Protocol, World, until};
use std::time::Duration;

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn cephfs_lets_in_the_nodes_that_it_is_published_to_and_nobody_else() {
    let world = World::get().await;
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let share = world.create(Protocol::Cephfs).await;
    let context = world.use_on(&share, one, false).await;
    let error = two.stage(&share, &context, false).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::PermissionDenied, "what is sealed to one node opens on no other: {error}");

    let second = world.use_on(&share, two, false).await;
    let key = world.ceph_key(&second).expect("the second node has a Ceph user of its own");
    assert_ne!(world.ceph_key(&context).as_deref(), Some(key.as_str()), "each node has a key of its own");
    assert_eq!(two.mount_by_hand(&second, Some(&key)).0, 0, "while it is published its key is good");
    world.leave(&share, two).await;
    assert_eq!(world.ceph_key(&second), None, "the user went with its last share");
    let (code, said) = two.mount_by_hand(&second, Some(&key));
    assert_ne!(code, 0, "the key of a revoked rule opens the share: {said}");
    let error = two.stage(&share, &second, false).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
    one.sh(&format!("echo still >{}/file", share.target("pod")));
    world.leave(&share, one).await;
    world.delete(&share).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn nfs_lets_in_the_nodes_that_it_is_published_to_and_nobody_else() {
    let world = World::get().await;
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let share = world.create(Protocol::Nfs).await;
    let context = world.use_on(&share, one, false).await;
    let (code, said) = two.mount_by_hand(&context, None);
    assert_ne!(code, 0, "a node that the share is not published to mounts it: {said}");
    let error = two.stage(&share, &context, false).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");

    let second = world.use_on(&share, two, false).await;
    assert_eq!(two.mount_by_hand(&second, None).0, 0);
    world.leave(&share, two).await;
    let (code, said) = two.mount_by_hand(&second, None);
    assert_ne!(code, 0, "a node that the share was closed to mounts it: {said}");
    one.sh(&format!("echo still >{}/file", share.target("pod")));
    world.leave(&share, one).await;
    world.delete(&share).await.unwrap();
}

/// A node that has it mounted still is cut off when the share is closed to it; the other one goes on, and what is left
/// of the mount can be taken away.
async fn closing_cuts_off_at_once(protocol: Protocol) {
    let world = World::get().await;
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let share = world.create(protocol).await;
    for node in [one, two] {
        world.use_on(&share, node, false).await;
    }
    let pod = share.target("pod");
    two.sh(&format!("echo mine >{pod}/file && sync {pod}/file"));
    world.unpublish(&share, two).await;
    let took = until("the node is cut off", Duration::from_secs(10), async || {
        two.try_sh(&format!("timeout 5 bash -c 'echo late >{pod}/late && sync {pod}/late'")).0 != 0
    });
    println!("{protocol:?}: cut off {:?} after ControllerUnpublish", took.await);
    assert_eq!(one.sh(&format!("ls {pod}")), "file", "nothing was written by the one that was cut off");
    one.sh(&format!("echo more >{pod}/file"));
    let problems = two.health(&share).await;
    assert!(!problems.is_empty(), "a mount that is cut off has a problem");

    two.hide(&share, "pod").await.unwrap();
    two.unstage(&share).await.unwrap();
    assert_eq!(two.mounts_of(&share), "");
    world.use_on(&share, two, false).await;
    assert_eq!(two.sh(&format!("cat {pod}/file")), "more", "it gets in again where it is published again");
    for node in [one, two] {
        world.leave(&share, node).await;
    }
    world.delete(&share).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn closing_cephfs_evicts_the_node_at_once() {
    closing_cuts_off_at_once(Protocol::Cephfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn closing_nfs_cuts_the_node_off_at_once() {
    closing_cuts_off_at_once(Protocol::Nfs).await;
}

/// A node that is to read only gets a rule that lets it read only: the server holds it to that.
async fn reading_only_is_held_by_the_server(protocol: Protocol) {
    let world = World::get().await;
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let share = world.create(protocol).await;
    let pod = share.target("pod");
    world.use_on(&share, one, false).await;
    one.sh(&format!("echo mine >{pod}/file && sync {pod}/file"));
    world.use_on(&share, two, true).await;
    assert_eq!(two.sh(&format!("cat {pod}/file")), "mine");
    let (code, said) = two.try_sh(&format!("touch {pod}/other"));
    assert!(code != 0 && said.contains("Read-only file system"), "{said}");
    // Past the driver: the mounts are made writable by hand.
    let staged = share.staging();
    let (code, said) = two.try_sh(&format!(
        "mount -i -o remount,rw {staged}; mount -o remount,bind,rw {pod}; timeout 20 bash -c 'echo x >{pod}/other && sync {pod}/other'"
    ));
    assert_ne!(code, 0, "a node that may read only has written: {said}");
    assert_eq!(one.sh(&format!("ls {pod}")), "file");
    for node in [two, one] {
        world.leave(&share, node).await;
    }
    world.delete(&share).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn ceph_holds_a_reader_to_reading() {
    reading_only_is_held_by_the_server(Protocol::Cephfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn the_nfs_server_holds_a_reader_to_reading() {
    reading_only_is_held_by_the_server(Protocol::Nfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn a_volume_written_by_hand_is_opened_and_closed_by_its_own_handle() {
    let world = World::get().await;
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let share = world.create(Protocol::Nfs).await;
    let by_hand = world.by_hand(&share, "my-data");
    let context = world.use_on(&by_hand, one, false).await;
    world.use_on(&share, one, false).await;
    one.sh(&format!("echo mine >{}/file", by_hand.target("pod")));
    assert_eq!(one.sh(&format!("cat {}/file", share.target("pod"))), "mine");
    world.leave(&share, one).await;
    assert_eq!(one.mount_by_hand(&context, None).0, 0, "the rule is needed by the other volume");
    let (code, said) = two.mount_by_hand(&context, None);
    assert_ne!(code, 0, "{said}");
    world.leave(&by_hand, one).await;
    let (code, said) = one.mount_by_hand(&context, None);
    assert_ne!(code, 0, "a node that the share was closed to mounts it: {said}");
    world.unpublish(&by_hand, one).await;
    world.delete(&share).await.unwrap();
}
