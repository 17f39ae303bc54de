"""Zones, volumes that stay, volumes that were there before."""

from harness import objects
from harness.cluster import until
from harness.scenario import scenario


@scenario("a volume is made in the zone of its pod, and later pods go there")
def topology(case):
    node = "node3"
    try:
        case.cluster.command("add-node", node, "az2")
        until("the driver is registered there",
              lambda: any(d["name"] == case.driver for d in (
                  (case.cluster.get("CSINode", node) or {"spec": {}})["spec"].get("drivers") or ())), 90)
        case.apply(objects.storage_class("in-zone", type="loop-b"))
        case.claim("far", storage_class="in-zone")
        case.pod("one", "far", node=node)
        assert case.cloud.volume(case.volume_of("far"))["availability_zone"] == "az2"
        case.delete("Pod", "one")
        # no selector: the volume decides
        case.pod("two", "far")
        assert case.node_of("two") == node
        case.end()
    finally:
        case.cluster.command("kill-node", node)
        case.cluster.delete("Node", node)
        until("its pods are gone", lambda: not any(
            p["spec"].get("nodeName") == node for p in case.cluster.list("Pod", "kube-system")), 90)


@scenario("Retain keeps the Cinder volume; a static PV brings it back")
def retain_and_static(case):
    case.claim("kept", storage_class="fuxi-cinder-retain")
    case.pod("one", "kept")
    case.sh("one", "echo precious >/v/file; sync")
    volume = case.volume_of("kept")
    pv = case.get("PersistentVolumeClaim", "kept")["spec"]["volumeName"]
    case.delete("Pod", "one")
    case.delete("PersistentVolumeClaim", "kept")
    until("the PV is released", lambda: case.cluster.get("PersistentVolume", pv)["status"]["phase"] == "Released")
    until("it is detached", lambda: case.cloud.volume(volume)["status"] == "available")
    case.cluster.delete("PersistentVolume", pv)
    until("the PV is gone", lambda: not case.cluster.get("PersistentVolume", pv))
    assert case.cloud.volume(volume)["status"] == "available"
    case.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": objects.meta("t-static"), "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {"name": "back", "namespace": case.name},
        "csi": {"driver": case.driver, "volumeHandle": volume, "fsType": "ext4"}}})
    # so that this volume goes with its claim in the end
    case.cluster.patch("PersistentVolume", "t-static", None, {"metadata": {"annotations": {
        "pv.kubernetes.io/provisioned-by": case.driver}}})
    case.claim("back", storage_class="", volumeName="t-static")
    case.pod("two", "back")
    assert case.sh("two", "cat /v/file") == "precious"
