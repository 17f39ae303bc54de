"""Expansion."""

from harness import objects
from harness.cluster import until
from harness.scenario import scenario


def grow(case, claim, size):
    case.cluster.patch("PersistentVolumeClaim", claim, case.name, {"spec": {"resources": {"requests": {"storage": size}}}})


def mebibytes(case, pod):
    return int(case.sh(pod, "df -m /v | tail -1 | awk '{print $2}'"))


@scenario("a volume grows while a pod uses it")
def online(case):
    case.apply(objects.storage_class("of-xfs", **{"csi.storage.k8s.io/fstype": "xfs"}))
    case.claim("data", storage_class="of-xfs")
    case.pod("user", "data")
    case.sh("user", "echo here >/v/file; sync")
    grow(case, "data", "3Gi")
    until("the claim has 3Gi", lambda: case.capacity("data") == "3Gi")
    assert mebibytes(case, "user") > 2800
    assert case.sh("user", "cat /v/file") == "here"
    assert case.cloud.volume(case.volume_of("data"))["size"] == 3


@scenario("a volume grows while nobody uses it")
def offline(case):
    case.claim("data")
    case.pod("user", "data")
    case.sh("user", "echo here >/v/file; sync")
    case.delete("Pod", "user")
    until("it is detached", lambda: case.cloud.volume(case.volume_of("data"))["status"] == "available")
    grow(case, "data", "2Gi")
    until("the volume has 2 GiB", lambda: case.cloud.volume(case.volume_of("data"))["size"] == 2)
    case.pod("again", "data")
    until("the claim has 2Gi", lambda: case.capacity("data") == "2Gi")
    assert mebibytes(case, "again") > 1800
    assert case.sh("again", "cat /v/file") == "here"


@scenario("a raw block volume grows while a pod uses it")
def block(case):
    case.claim("raw", mode="Block")
    case.pod("user", "raw", block=True)
    grow(case, "raw", "2Gi")
    until("the claim has 2Gi", lambda: case.capacity("raw") == "2Gi")
    assert case.sh("user", "blockdev --getsize64 /dev/v") == str(2 << 30)
