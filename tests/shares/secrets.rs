//! The key of a node's Ceph user: in the mount, and nowhere else.

use crate::world::{Protocol, World};

#[tokio::test]
#[ignore = "needs the guests and the Ceph of tests/guest/manila"]
async fn a_ceph_key_is_in_no_list_of_processes_no_mount_table_no_log_and_no_file() {
    let world = World::get().await;
    let node = &world.nodes[0];
    let share = world.create(Protocol::Cephfs).await;
    // All command lines there are, again and again, while it is staged.
    node.sh(
        "rm -f /tmp/end /tmp/ended /tmp/lines; (until [ -e /tmp/end ]; do cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; \
         done >/tmp/lines 2>/dev/null </dev/null; touch /tmp/ended) >/dev/null 2>&1 & timeout 60 sh -c \
         'until [ -s /tmp/lines ]; do sleep 0.1; done'",
    );
    let context = world.use_on(&share, node, false).await;
    node.sh(
        "touch /tmp/end; timeout 60 sh -c 'until [ -e /tmp/ended ]; do sleep 0.1; done'; grep -q fuxi-csi /tmp/lines",
    );
    let key = world.ceph_key(&context).unwrap();
    assert!(!format!("{context:?}").contains(&key), "the orchestrator must not see the key");
    assert!(node.mounts_of(&share).contains("secret=<hidden>"), "{}", node.mounts_of(&share));
    for place in ["/tmp/lines", "/proc/self/mountinfo", "/proc/mounts", "-r /var/lib/fuxi", &node.log, "-r /etc /run"] {
        let (code, said) = node.try_sh(&format!("grep -F -s -q -- '{key}' {place}"));
        assert_ne!(code, 0, "the key stands in {place}: {said}");
    }
    let (code, _) = node.try_sh(&format!("dmesg | grep -F -q -- '{key}'"));
    assert_ne!(code, 0, "the key stands in the kernel's log");
    let log = std::fs::read_to_string(world.fact("controller_log")).unwrap();
    assert!(log.contains(&share.id) && !log.contains(&key), "the key stands in the controller's log");
    node.sh(&format!("test -s {}", node.log));
    world.leave(&share, node).await;
    world.delete(&share).await.unwrap();
}
