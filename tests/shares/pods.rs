//! Several workloads of one node: the share is mounted once, and shown to each as it should be.

use crate::world::{Protocol, World};

async fn workloads_share_one_mount(protocol: Protocol) {
    let world = World::get().await;
    let node = &world.nodes[0];
    let share = world.create(protocol).await;
    world.use_on(&share, node, false).await;
    node.show(&share, "second", false).await.unwrap();
    node.show(&share, "reader", true).await.unwrap();
    node.show(&share, "reader", true).await.unwrap();
    let (pod, second, reader) = (share.target("pod"), share.target("second"), share.target("reader"));
    assert_eq!(node.mounts_of(&share).lines().count(), 4, "staged once, shown three times: {}", node.mounts_of(&share));
    node.sh(&format!("mkdir {pod}/part && echo mine >{second}/part/file"));
    assert_eq!(node.sh(&format!("cat {reader}/part/file")), "mine");
    let (code, said) = node.try_sh(&format!("touch {reader}/other"));
    assert!(code != 0 && said.contains("Read-only file system"), "{said}");

    // As an orchestrator shows a part of a volume: a directory of what is published, bound to another place.
    node.sh(&format!("mkdir -p /var/lib/part && mount --bind {pod}/part /var/lib/part"));
    assert_eq!(node.sh("cat /var/lib/part/file"), "mine");
    node.hide(&share, "second").await.unwrap();
    node.sh("echo more >>/var/lib/part/file && umount /var/lib/part");
    assert_eq!(node.sh(&format!("cat {reader}/part/file")), "mine\nmore", "the others keep what they have");
    node.hide(&share, "reader").await.unwrap();
    world.leave(&share, node).await;
    world.delete(&share).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn workloads_share_one_mount_of_cephfs() {
    workloads_share_one_mount(Protocol::Cephfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn workloads_share_one_mount_of_nfs() {
    workloads_share_one_mount(Protocol::Nfs).await;
}

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn ceph_fuse_mounts_where_it_is_asked_for() {
    let world = World::get().await;
    let node = &world.nodes[0];
    node.sh("modprobe fuse");
    let share = world.create_with(Protocol::Cephfs, &[("cephfs-mounter", "fuse")]).await;
    let context = world.use_on(&share, node, false).await;
    let mounts = node.mounts_of(&share);
    assert!(mounts.contains("fuse.ceph-fuse"), "{mounts}");
    let pod = share.target("pod");
    node.sh(&format!("echo mine >{pod}/file && sync {pod}/file && ps -C ceph-fuse"));
    assert_eq!(node.size(&share).await.unwrap(), 1 << 30);
    assert_eq!(node.health(&share).await, Vec::<String>::new());
    node.stage(&share, &context, false).await.unwrap();
    assert_eq!(node.mounts_of(&share), mounts, "staged again, and nothing has changed");
    let key = world.ceph_key(&context).unwrap();
    let line = node.sh("tr '\\0' ' ' </proc/$(pidof ceph-fuse)/cmdline");
    assert!(line.contains("--keyfile=") && !line.contains(&key), "{line}");
    assert_eq!(node.sh("ls /var/lib/fuxi/keys"), "", "the file with the key is left");
    world.leave(&share, node).await;
    let (code, said) = node.try_sh("timeout 60 sh -c 'while ps -C ceph-fuse; do sleep 0.2; done'");
    assert_eq!(code, 0, "the program stays without its mount: {said}");
    world.delete(&share).await.unwrap();
}
