"""Volumes in pods: the everyday."""

import time

from harness import objects
from harness.cluster import until
from harness.scenario import scenario


@scenario("a claim, a pod that writes, the pod on another node, its data there")
def moves(case):
    start = time.monotonic()
    case.claim("data")
    case.pod("one", "data", node="node1")
    case.seconds("first pod", start)
    case.sh("one", "echo kept >/v/file; sync")
    volume = case.cloud.volume(case.volume_of("data"))
    assert volume["status"] == "in-use" and volume["size"] == 1, volume
    assert volume["metadata"][case.driver + "/cluster"] == "kubernetes", volume["metadata"]
    assert volume["metadata"]["csi.storage.k8s.io/pvc/name"] == "data", volume["metadata"]
    start = time.monotonic()
    case.delete("Pod", "one")
    case.pod("two", "data", node="node2")
    case.seconds("moved", start)
    assert case.sh("two", "cat /v/file") == "kept"
    assert case.cloud.attached_to(case.cluster.server("node1")) == []
    case.delete("Pod", "two")
    start = time.monotonic()
    case.delete("PersistentVolumeClaim", "data")
    until("the volume is gone", lambda: not case.cloud.list("volumes"))
    case.seconds("deleted", start)


@scenario("a raw block volume keeps its bytes from node to node")
def raw_block(case):
    case.claim("raw", mode="Block")
    case.pod("one", "raw", node="node1", block=True)
    case.sh("one", "echo raw bytes | dd of=/dev/v bs=512 conv=sync,fsync 2>/dev/null")
    case.delete("Pod", "one")
    case.pod("two", "raw", node="node2", block=True)
    assert case.sh("two", "head -c 9 /dev/v") == "raw bytes"


@scenario("two pods on two nodes write one multiattach block volume")
def multiattach(case):
    case.apply(objects.storage_class("multi", type="multi"))
    case.claim("shared", mode="Block", access="ReadWriteMany", storage_class="multi")
    case.pod("one", "shared", node="node1", block=True)
    case.pod("two", "shared", node="node2", block=True)
    assert len(case.cloud.volume(case.volume_of("shared"))["attachments"]) == 2
    case.sh("one", "echo from one | dd of=/dev/v bs=512 conv=sync,fsync 2>/dev/null")
    case.sh("two", "echo from two | dd of=/dev/v bs=512 seek=1 conv=sync,fsync 2>/dev/null")
    assert case.sh("two", "head -c 8 /dev/v") == "from one"
    case.delete("Pod", "two")
    # the other one goes on
    assert case.sh("one", "dd if=/dev/v bs=512 skip=1 count=1 2>/dev/null | head -c 8") == "from two"


@scenario("a generic ephemeral volume comes and goes with its pod")
def ephemeral(case):
    template = {"spec": {"storageClassName": objects.CLASS, "accessModes": ["ReadWriteOnce"],
                         "resources": {"requests": {"storage": "1Gi"}}}}
    case.pod("one", volume={"ephemeral": {"volumeClaimTemplate": template}})
    case.sh("one", "echo scratch >/v/file")
    assert case.get("PersistentVolumeClaim", "one-v")
    case.delete("Pod", "one")
    until("the volume is gone", lambda: not case.cloud.list("volumes"))


@scenario("a StatefulSet of three, scaled down and up again, finds its data")
def stateful_set(case):
    case.apply(objects.stateful_set("db", case.name, 3))
    for number in range(3):
        case.running("db-%d" % number)
        case.sh("db-%d" % number, "echo %d >/v/mine; sync" % number)
    case.cluster.patch("StatefulSet", "db", case.name, {"spec": {"replicas": 0}})
    until("its pods are gone", lambda: not case.cluster.list("Pod", case.name))
    case.cluster.patch("StatefulSet", "db", case.name, {"spec": {"replicas": 3}})
    for number in range(3):
        case.running("db-%d" % number)
        assert case.sh("db-%d" % number, "cat /v/mine") == str(number)


@scenario("every file system is made, and its files belong to the pod's fsGroup")
def file_systems(case):
    for kind in ("ext4", "ext3", "xfs", "btrfs"):
        case.apply(objects.storage_class("of-" + kind, **{"csi.storage.k8s.io/fstype": kind}))
        case.claim(kind, storage_class="of-" + kind)
        case.pod(kind, kind, wait=False, securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000})
    for kind in ("ext4", "ext3", "xfs", "btrfs"):
        case.running(kind)
        assert case.sh(kind, "awk '$2 == \"/v\" {print $3}' /proc/mounts") == kind
        case.sh(kind, "echo mine >/v/file")
        assert case.sh(kind, "stat -c %g /v/file") == "2000"


@scenario("a volume that is read only in one pod, and one for a single pod only")
def access(case):
    case.claim("data")
    case.pod("writer", "data", node="node1")
    case.sh("writer", "echo once >/v/file; sync")
    case.pod("reader", "data", node="node1", read_only=True)
    assert case.sh("reader", "cat /v/file; echo no >/v/file", check=False) == "once"
    case.claim("alone", access="ReadWriteOncePod")
    case.pod("first", "alone", node="node1")
    case.pod("second", "alone", node="node1", wait=False)
    until("the scheduler refuses the second pod", lambda: any(
        "ReadWriteOncePod" in c.get("message", "") for c in case.get("Pod", "second")["status"].get("conditions", ())))
    case.delete("Pod", "first")
    case.running("second")
