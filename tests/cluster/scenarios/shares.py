"""Shares of Manila, from the overlay that goes beside Cinder's."""

from harness import deployment, objects
from harness.cluster import until
from harness.scenario import scenario

from .bad_input import told
from .copies import FILL
from .sizes import grow, mebibytes

NFS = "fuxi-manila-nfs"
# a pod that is not root, whose group the share's files are given to
NOT_ROOT = {"securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}}


def installed(case):
    """The driver of shares is there; the last scenario takes it away."""
    if not case.cluster.get("CSIDriver", objects.SHARE_DRIVER):
        deployment.add_shares(case.cluster, case.cloud)
    case.driver, case.instance = objects.SHARE_DRIVER, "manila"


def share(case, name, size="1Gi", **options):
    installed(case)
    case.claim(name, size=size, **{"storage_class": NFS, "access": "ReadWriteMany", **options})


def address(number):
    return deployment.GATEWAY.replace(".254", ".%d" % number)


def let_in(case, claim):
    return [to.removesuffix("/32") for to, _ in case.cloud.rules(case.volume_of(claim))]


@scenario("two pods on two nodes write one share; a rule for each node, revoked when its pod is gone")
def together(case):
    share(case, "shared")
    case.pod("one", "shared", node="node1", **NOT_ROOT)
    case.sh("one", "echo from one >/v/one")
    assert let_in(case, "shared") == [address(1)]
    case.pod("two", "shared", node="node2", **NOT_ROOT)
    assert let_in(case, "shared") == [address(1), address(2)]
    assert case.sh("two", "cat /v/one; echo from two >>/v/one; echo own >/v/two") == "from one"
    assert case.sh("one", "cat /v/one /v/two") == "from one\nfrom two\nown"
    assert case.cloud.shares()[0]["metadata"][case.driver + "/cluster"] == "kubernetes"
    case.delete("Pod", "one")
    until("node1 is let in no more", lambda: let_in(case, "shared") == [address(2)])
    # the other one goes on, and a pod comes back
    assert case.sh("two", "echo on >>/v/one; tail -1 /v/one") == "on"
    case.pod("one", "shared", node="node1", read_only=True)
    assert case.sh("one", "cat /v/two; echo no >/v/two", check=False) == "own"


@scenario("a share that may only be read is opened to its node for reading alone")
def read_only(case):
    share(case, "data")
    case.pod("writer", "data", node="node1")
    case.sh("writer", "echo once >/v/file; sync")
    case.delete("Pod", "writer")
    volume = case.volume_of("data")
    until("nobody is let in", lambda: case.cloud.rules(volume) == [])
    case.pod("reader", node="node2", volume={"persistentVolumeClaim": {"claimName": "data", "readOnly": True}})
    assert case.sh("reader", "cat /v/file; echo no >/v/file", check=False) == "once"


@scenario("a share grows while a pod uses it")
def grows(case):
    share(case, "data")
    case.pod("user", "data")
    case.sh("user", "echo here >/v/file; sync")
    grow(case, "data", "2Gi")
    until("the claim has 2Gi", lambda: case.capacity("data") == "2Gi")
    assert mebibytes(case, "user") > 1900
    assert case.sh("user", "cat /v/file") == "here"


@scenario("a snapshot of a share in use, restored to a larger one and compared")
def snapshot(case):
    share(case, "data")
    case.pod("writer", "data")
    sum_then = case.sh("writer", FILL)
    case.snapshot("then", of="data", snapshot_class="fuxi-manila-snapshot")
    case.sh("writer", FILL)
    share(case, "again", size="2Gi", source=("VolumeSnapshot", "then"))
    case.pod("reader", "again", node="node2")
    assert case.sh("reader", "md5sum </v/file") == sum_then
    assert mebibytes(case, "reader") > 1900
    case.delete("VolumeSnapshot", "then")
    until("the snapshot is gone", lambda: not case.cloud.share_snapshots())


@scenario("the node plugin of shares ends while pods use them: they go on, and are taken away properly")
def node_plugin(case):
    share(case, "data")
    case.pod("user", "data", node="node1")
    case.sh("user", "echo before >/v/file")
    deployment.restart(case.cluster, deployment.names("manila")[1])
    case.sh("user", "echo during >>/v/file; sync")
    deployment.wait_ready(case.cluster, instance="manila")
    case.delete("Pod", "user")
    case.pod("again", "data", node="node2")
    assert case.sh("again", "cat /v/file") == "before\nduring"


@scenario("classes of shares that are wrong, and a full quota: the events name cause and way out")
def bad_input(case):
    installed(case)
    for name, parameters, words in (
            ("slip", {"protocl": "NFS"}, ("protocl", "protocol")),
            ("odd", {"protocol": "SMB"}, ("SMB", "NFS", "CEPHFS")),
            ("typo", {"type": "no-such-type"}, ("no-such-type",)),
            ("zone", {"availability": "no-such-zone"}, ("no-such-zone",))):
        case.apply(objects.storage_class(name, objects.SHARE_DRIVER, binding="Immediate", **parameters))
        share(case, name, storage_class=name)
        told(case, name, *words)
    share(case, "block", mode="Block")
    told(case, "block", "block")
    quota = "/quota-sets/" + case.cloud.info["demo_project_id"]

    def limit(shares):
        case.cloud.admin("PUT", "share", quota, {"quota_set": {"shares": shares}})
    limit(0)
    try:
        share(case, "full")
        told(case, "full", "quota")
    finally:
        limit(-1)
    case.pod("user", "full")


@scenario("a share as manila-csi made it is taken over under its driver's name: used, grown, deleted")
def in_the_place_of_manila_csi(case):
    cluster, cloud, instance, driver = case.cluster, case.cloud, "manila-nfs", "nfs.manila.csi.openstack.org"
    made = cloud.api("POST", "share", "/shares", {"share": {
        "share_proto": "NFS", "size": 1, "name": "pvc-of-manila-csi", "share_type": "default",
        "metadata": {"manila.csi.openstack.org/cluster": "kubernetes"}}})["share"]["id"]
    cloud.api.wait("share", "/shares/" + made, "available")
    # it opens shares to everybody once
    everybody = cloud.api("POST", "share", "/shares/%s/action" % made, {"allow_access": {
        "access_type": "ip", "access_to": "0.0.0.0/0", "access_level": "rw"}})["access"]["id"]
    overlay = deployment.SHARES + "-csi/nfs"
    case.afterwards.append(lambda: deployment.remove(cluster, overlay, instance))
    deployment.add_shares(cluster, cloud, overlay, instance)
    case.instance = instance
    case.driver = driver
    secret = {"name": "csi-manila-secrets", "namespace": case.name}
    case.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": secret,
                        "stringData": {"os-authURL": deployment.as_pods_see(cloud.info["auth_url"]),
                                       "os-region": cloud.info["region"], "os-password": "of manila-csi"}})
    secrets = {"csi.storage.k8s.io/%s-secret-%s" % (use, key): secret[key] for key in ("name", "namespace")
               for use in ("provisioner", "controller-expand", "node-stage", "node-publish")}
    case.apply(objects.storage_class("csi-manila-nfs", driver, binding="Immediate", type="default",
                                     **{"nfs-shareClient": "10.0.0.0/8"}, **secrets))
    case.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": objects.meta(
        "t-of-manila-csi", annotations={"pv.kubernetes.io/provisioned-by": driver}), "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "csi-manila-nfs",
        "persistentVolumeReclaimPolicy": "Delete", "claimRef": {"name": "old", "namespace": case.name},
        "csi": {"driver": driver, "volumeHandle": made, "nodeStageSecretRef": secret, "nodePublishSecretRef": secret,
                "controllerExpandSecretRef": secret,
                "volumeAttributes": {"shareID": made, "shareAccessID": everybody, "cephfs-mounter": "fuse"}}}})
    case.claim("old", storage_class="csi-manila-nfs", access="ReadWriteMany", volumeName="t-of-manila-csi")
    case.pod("one", "old", node="node1")
    case.pod("two", "old", node="node2")
    case.sh("one", "echo both >/v/file; sync")
    assert case.sh("two", "cat /v/file") == "both"
    # manila-csi's rule is not touched; with those of the nodes beside it, it may be removed
    assert cloud.rules(made) == [("0.0.0.0/0", "rw"), (address(1), "rw"), (address(2), "rw")], cloud.rules(made)
    cloud.api("POST", "share", "/shares/%s/action" % made, {"deny_access": {"access_id": everybody}})
    until("nobody else is let in", lambda: let_in(case, "old") == [address(1), address(2)])
    case.delete("Pod", "two")
    case.pod("two", "old", node="node2")
    grow(case, "old", "2Gi")
    until("the claim has 2Gi", lambda: case.capacity("old") == "2Gi")
    # a class of manila-csi goes on as well; its one rule is for the network that it says
    case.claim("new", storage_class="csi-manila-nfs", access="ReadWriteMany")
    case.pod("new", "new")
    assert let_in(case, "new") == ["10.0.0.0/8"], cloud.rules(case.volume_of("new"))
    for pod in ("one", "two", "new"):
        case.delete("Pod", pod)
    # the secret is needed as long as something is deleted
    for claim in ("old", "new"):
        case.delete("PersistentVolumeClaim", claim)
    until("the shares are gone", lambda: not cloud.shares())


@scenario("the driver of shares is taken away again, and leaves nothing on the nodes")
def taken_away(case):
    installed(case)
    deployment.remove(case.cluster, deployment.SHARES, "manila")
    assert not case.cluster.get("CSIDriver", objects.SHARE_DRIVER)
    until("no kubelet knows it", lambda: not any(
        deployment.registration(case.cluster, node, objects.SHARE_DRIVER) for node in case.cluster.nodes()), 60)
