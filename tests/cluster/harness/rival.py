"""cinder-csi in the cluster, beside the driver or before it."""

import os
import shutil
import subprocess

from . import deployment, objects
from .cluster import HERE, PROJECT, until

NAME = "cinder.csi.openstack.org"
MANIFESTS = os.path.join(HERE, "rival", "manifests.yaml")
PLUGIN = os.path.join(os.environ.get("CSIBENCH_CACHE", "/var/tmp/fuxi-bench"), "bin", "cinder-csi-plugin")
# what it calls on a node
PROGRAMS = ("mkfs.ext2 mkfs.ext3 mkfs.ext4 mkfs.xfs mkfs blkid fsck fsck.ext2 fsck.ext3 fsck.ext4 fsck.xfs mount umount "
            "findmnt blockdev resize2fs dumpe2fs tune2fs e2fsck xfs_growfs xfs_io xfs_repair lsblk losetup stat cat sh").split()


def install(cluster):
    """Its pods, and wait until the kubelets know it. It reads the Secret of our controller, and uses the catalogue."""
    subprocess.run([os.path.join(PROJECT, "tests", "bench", "bench"), "build"], check=True, stdout=subprocess.DEVNULL)
    words = [word for p in PROGRAMS if shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin") for word in ("--program", p)]
    cluster.command("load-image", "localhost/cinder-csi-plugin:1.36.0", PLUGIN + ":/bin/cinder-csi-plugin",
                    "--entrypoint", "/bin/cinder-csi-plugin", *words)
    cluster.command("load-sidecars")
    cluster.command("share-cloud")
    cluster.kubectl("apply", "-f", MANIFESTS)
    cluster.apply(objects.storage_class("cinder-csi", NAME, **{"csi.storage.k8s.io/fstype": "xfs"}),
                  objects.snapshot_class("cinder-csi", NAME, **{"force-create": "true"}))
    until("cinder-csi is registered everywhere",
          lambda: all(deployment.registration(cluster, node, NAME) for node in cluster.nodes()), 120)


def remove(cluster):
    """Its pods and its CSIDriver; volumes, classes and the Secret stay."""
    cluster.kubectl("delete", "--ignore-not-found", "-f", MANIFESTS)
    until("the pods of cinder-csi are gone", lambda: not [
        p for p in cluster.list("Pod", "kube-system") if p["metadata"]["labels"].get("app", "").startswith("csi-cinder-")], 90)
