"""What is there: in OpenStack, in Kubernetes, on the nodes. Nothing of it may stay when a scenario is over."""

import glob
import json
import os
import secrets
import subprocess

from .cluster import PROJECT, HOME
from cloud_runtime.api import Api

CLOUD = os.path.join(PROJECT, "tests", "openstack", "cloud")
KINDS = ("volumes", "snapshots", "attachments", "backups")


class Cloud:
    """The OpenStack that `cluster openstack` started. `info`: its addresses; `api`: a session of project demo."""

    def __init__(self):
        self.env = dict(os.environ, CLOUD_HOME=os.environ.get("CLOUD_HOME", os.path.join(HOME, "cloud")))
        self.info = json.loads(subprocess.run([CLOUD, "info"], env=self.env, check=True, text=True,
                                              stdout=subprocess.PIPE).stdout)
        self.api = Api(self.info["auth_url"], user="demo")
        self.admin = Api(self.info["auth_url"], user="admin")

    def credential(self):
        """A new application credential of project demo: its id and secret."""
        made = self.api("POST", "identity", "/users/%s/application_credentials" % self.info["demo_user_id"], {
            "application_credential": {"name": "cluster-" + secrets.token_hex(4), "secret": secrets.token_hex(16),
                                       "roles": [{"name": "member"}]}})["application_credential"]
        return made["id"], made["secret"]

    def revoke(self, credential):
        """Its tokens end with it."""
        self.api("DELETE", "identity", "/users/%s/application_credentials/%s" % (self.info["demo_user_id"], credential))

    def stop(self, *services):
        subprocess.run([CLOUD, "stop", *services], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def start(self, *services):
        subprocess.run([CLOUD, "start", *services], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def restart(self, *services):
        self.stop(*services)
        self.start(*services)

    def list(self, kind):
        path = "/attachments" if kind == "attachments" else "/%s/detail" % kind
        return self.api("GET", "volume", path)[kind]

    def shares(self):
        return self.api("GET", "share", "/shares/detail")["shares"]

    def share_snapshots(self):
        return self.api("GET", "share", "/snapshots/detail")["snapshots"]

    def rules(self, share):
        """Whom a share lets in: [(to, level)]."""
        found = self.api("GET", "share", "/share-access-rules?share_id=" + share)["access_list"]
        return sorted((rule["access_to"], rule["access_level"]) for rule in found)

    def volume(self, volume):
        return self.api("GET", "volume", "/volumes/" + volume)["volume"]

    def attached_to(self, server):
        return [a["volumeId"] for a in self.api(
            "GET", "compute", "/servers/%s/os-volume_attachments" % server)["volumeAttachments"]]

    def disks(self, server):
        folder = os.path.join(self.info["nodes"], server, "dev/disk/by-id")
        return os.listdir(folder) if os.path.isdir(folder) else []

    def loops(self):
        """Loop devices of the cloud's volumes."""
        out = subprocess.run(["losetup", "--json", "--output", "NAME,BACK-FILE"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout
        volumes = os.path.join(self.info["state"], "volumes") + "/"
        return [d["name"] for d in json.loads(out or "{}").get("loopdevices", ())
                if (d["back-file"] or "").startswith(volumes)]


def mounts(cluster, node):
    """Mount points of volumes on a node."""
    with open("/proc/%d/mounts" % cluster.pid(node)) as f:
        points = [line.split()[1] for line in f]
    return [p for p in points if "/kubernetes.io~csi/" in p or "/plugins/kubernetes.io/csi/" in p]


def records(cluster, node):
    """Records of staged volumes on a node, of whichever driver."""
    return glob.glob(os.path.join(cluster.state, "nodes", node, "var/lib/kubelet/plugins", "*.openstack.org", "volumes", "*"))


def leftovers(cluster, cloud):
    """[what is there], in words."""
    found = ["manila: share %s %s (%s)" % (s["id"], s["name"], s["status"]) for s in cloud.shares()]
    found += ["manila: snapshot %s (%s)" % (s["id"], s["status"]) for s in cloud.share_snapshots()]
    for kind in KINDS:
        for one in cloud.list(kind):
            found.append("cinder: %s %s %s (%s)" % (kind[:-1], one["id"], one.get("name") or "", one.get("status")))
    for node in cluster.nodes():
        server = cluster.server(node)
        found += ["nova: volume %s on %s" % (volume, node) for volume in cloud.attached_to(server)]
        found += ["disk %s on %s" % (disk, node) for disk in cloud.disks(server)]
        found += ["mount %s on %s" % (point, node) for point in mounts(cluster, node)]
        found += ["record %s on %s" % (os.path.basename(path), node) for path in records(cluster, node)]
    found += ["loop device " + name for name in cloud.loops()]
    for kind in ("PersistentVolume", "VolumeAttachment", "VolumeSnapshotContent"):
        found += ["kubernetes: %s %s" % (kind, one["metadata"]["name"]) for one in cluster.list(kind)]
    return found
