//! The size of a share: seen by the workload and by the orchestrator, kept by the server, grown while it is used.

use crate::world::{GIB, Node, Protocol, World, until};
use std::time::Duration;

/// Writes one block so far into a file that it has this size; whether the server lets it.
fn holds(node: &Node, file: &str, mebibytes: u32) -> bool {
    let end = mebibytes - 1;
    let (code, said) = node.try_sh(&format!(
        "dd if=/dev/zero of={file} bs=1M count=1 seek={end} conv=fsync status=none; code=$?; rm -f {file}; exit $code"
    ));
    assert!(code == 0 || said.contains("Disk quota exceeded") || said.contains("No space left"), "{code}: {said}");
    code == 0
}

async fn two_nodes_write_at_once_within_the_quota_and_see_it_grow(protocol: Protocol) {
    let world = World::get().await;
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let share = world.create(protocol).await;
    let pod = share.target("pod");
    for node in [one, two] {
        world.use_on(&share, node, false).await;
    }
    let fill = |node: &Node, name: &str| {
        node.sh(&format!("for i in $(seq 20); do echo {name} $i >{pod}/{name}-$i; done; echo end >>{pod}/{name}"));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| fill(one, "one"));
        scope.spawn(|| fill(two, "two"));
    });
    for node in [one, two] {
        let seen = until("both nodes see what both have written", Duration::from_secs(30), async || {
            node.sh(&format!("cat {pod}/one-* {pod}/two-* | wc -l")) == "40"
        });
        seen.await;
    }

    for node in [one, two] {
        assert_eq!(node.size(&share).await.unwrap(), GIB);
        assert_eq!(node.sh(&format!("df -B1 --output=size {pod} | tail -n 1")), GIB.to_string());
    }
    assert!(holds(one, &format!("{pod}/within"), 900));
    assert!(!holds(one, &format!("{pod}/beyond"), 1100), "more was written than the share's size");

    world.expand(&share, 2 * GIB).await;
    for node in [one, two] {
        let seen = until("the node sees the growth", Duration::from_secs(60), async || {
            node.size(&share).await.unwrap() == 2 * GIB
        });
        println!("{protocol:?}: growth seen after {:?}", seen.await);
    }
    let written =
        until("the new size can be used", Duration::from_secs(60), async || holds(two, &format!("{pod}/beyond"), 1100));
    println!("{protocol:?}: growth usable after {:?}", written.await);
    for node in [one, two] {
        world.leave(&share, node).await;
    }
    world.delete(&share).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn two_nodes_write_to_cephfs_at_once_within_the_quota_and_see_it_grow() {
    two_nodes_write_at_once_within_the_quota_and_see_it_grow(Protocol::Cephfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn two_nodes_write_to_nfs_at_once_within_the_quota_and_see_it_grow() {
    two_nodes_write_at_once_within_the_quota_and_see_it_grow(Protocol::Nfs).await;
}
