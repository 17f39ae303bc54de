"""Nodes that are no servers of Nova: they attach volumes of Cinder themselves."""

from harness import deployment, objects
from harness.cluster import until
from harness.scenario import scenario

from .sizes import grow, mebibytes


def undercloud(case):
    """The overlay for such nodes, in the place of the usual one, until the scenario is over."""
    def back():
        deployment.remove(case.cluster, deployment.UNDERCLOUD)
        deployment.add(case.cluster, deployment.OVERCLOUD)
    case.afterwards.append(back)
    deployment.remove(case.cluster)
    deployment.add(case.cluster, deployment.UNDERCLOUD)


@scenario("hosts attach volumes themselves: a pod moves with its data, raw block, growth, restart; Nova has no part in it")
def attach_themselves(case):
    cluster, cloud = case.cluster, case.cloud
    undercloud(case)
    cloud.stop("nova")
    try:
        case.apply(objects.storage_class("of-xfs", **{"csi.storage.k8s.io/fstype": "xfs"}))
        case.claim("data", storage_class="of-xfs")
        case.pod("one", "data", node="node1")
        case.sh("one", "echo kept >/v/file; sync")
        volume = case.volume_of("data")
        attached, = cloud.volume(volume)["attachments"]
        assert not attached["server_id"] and attached["device"].startswith("csi:kubernetes:"), attached
        case.delete("Pod", "one")
        case.pod("two", "data", node="node2")
        assert case.sh("two", "cat /v/file") == "kept"
        now, = cloud.volume(volume)["attachments"]
        assert now["device"] != attached["device"], "both hosts are one to the storage"
        grow(case, "data", "2Gi")
        until("the claim has 2Gi", lambda: case.capacity("data") == "2Gi")
        assert mebibytes(case, "two") > 1900
        deployment.restart(cluster, deployment.NODE)
        case.sh("two", "echo more >>/v/file; sync")
        deployment.wait_ready(cluster)
        case.delete("Pod", "two")
        case.pod("three", "data", node="node1")
        assert case.sh("three", "cat /v/file") == "kept\nmore"

        case.claim("raw", mode="Block")
        case.pod("raw-one", "raw", node="node1", block=True)
        case.sh("raw-one", "echo raw bytes | dd of=/dev/v bs=512 conv=sync,fsync 2>/dev/null")
        case.delete("Pod", "raw-one")
        case.pod("raw-two", "raw", node="node2", block=True)
        assert case.sh("raw-two", "head -c 9 /dev/v") == "raw bytes"
    finally:
        cloud.start("nova")
