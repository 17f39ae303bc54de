"""The driver in the place of cinder-csi."""

from harness import deployment, objects, rival
from harness.cluster import until
from harness.scenario import scenario

from .sizes import grow, mebibytes


@scenario("volumes and snapshots of the real cinder-csi are taken over: used, grown, snapshotted, deleted")
def takeover(case):
    cluster = case.cluster
    rival.install(cluster)
    try:
        for kind in ("StorageClass", "VolumeSnapshotClass"):
            case.extra.append((kind, "cinder-csi"))
        case.claim("data", storage_class="cinder-csi")
        case.pod("user", "data", node="node1")
        case.sh("user", "echo from cinder-csi >/v/file; sync")
        case.snapshot("then", of="data", snapshot_class="cinder-csi")
        case.claim("raw", storage_class="cinder-csi", mode="Block")
        case.pod("raw", "raw", node="node1", block=True)
        case.sh("raw", "echo raw bytes | dd of=/dev/v bs=512 conv=sync,fsync 2>/dev/null")

        # docs/migrate.md, step by step
        rival.remove(cluster)
        deployment.remove(cluster)
        cluster.kubectl("apply", "-k", deployment.DEPLOY + "/overlays/cinder-csi")
        deployment.wait_ready(cluster)
        case.driver = rival.NAME

        assert case.sh("user", "echo still there >>/v/file; cat /v/file") == "from cinder-csi\nstill there"
        grow(case, "data", "2Gi")
        until("the claim has 2Gi", lambda: case.capacity("data") == "2Gi")
        assert mebibytes(case, "user") > 1800
        case.snapshot("now", of="data", snapshot_class="cinder-csi")
        case.delete("Pod", "user")
        case.pod("moved", "data", node="node2")
        assert case.sh("moved", "cat /v/file") == "from cinder-csi\nstill there"
        case.delete("Pod", "raw")
        case.pod("raw-moved", "raw", node="node2", block=True)
        assert case.sh("raw-moved", "head -c 9 /dev/v") == "raw bytes"
        for name, text in (("then", "from cinder-csi"), ("now", "from cinder-csi\nstill there")):
            case.claim("of-" + name, storage_class="cinder-csi", source=("VolumeSnapshot", name), size="2Gi")
            case.pod("of-" + name, "of-" + name)
            assert case.sh("of-" + name, "cat /v/file") == text
        case.claim("new", storage_class="cinder-csi")
        case.pod("new", "new")
        # and the way back, while a volume that the driver made is in use
        case.delete("Pod", "new")
        case.pod("stays", "new", node="node2")
        case.sh("stays", "echo from fuxi >/v/file; sync")
        deployment.remove(cluster, "overlays/cinder-csi")
        rival.install(cluster)
        case.driver = rival.NAME
        case.delete("Pod", "stays")
        case.pod("back", "new", node="node1")
        assert case.sh("back", "cat /v/file") == "from fuxi"
        # what cinder-csi unstaged, it does not take from the driver's records
        for node in cluster.nodes():
            cluster.run_on(node, "rm", "-rf", "/var/lib/kubelet/plugins/%s/volumes" % rival.NAME)
        case.end(240)
    finally:
        rival.remove(cluster)
        deployment.remove(cluster, "overlays/cinder-csi")
        cluster.kubectl("apply", "-k", deployment.DEPLOY + "/overlays/overcloud")
        deployment.wait_ready(cluster)
        case.driver = objects.DRIVER
