"""Volumes in pods: the everyday."""

import time

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
