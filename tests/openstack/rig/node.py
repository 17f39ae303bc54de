"""What a node runs on: a Nova server, or a host that Nova does not know; namespaces in which this machine is it."""

import contextlib
import os
import subprocess

from .cloud import CLOUD
from .namespaces import Namespaces
from .relay import MetadataService, Relays, listen_in

METADATA = ("169.254.169.254", 80)


class NodeHost:
    """A Nova server, and namespaces in which this machine is that server.

    The network has loopback only: the metadata service answers at its usual address, as this server's, and, where the
    node is to reach the cloud, the cloud's ports are on 127.0.0.1.  /dev/disk/by-id has this server's disks only.

    `enter`: the words that run a command there; `server_id`: which server it is.
    """

    def __init__(self, cloud, name, folder, within=None, reaches_cloud=True, mounts_shares=False):
        """folder: for our files; within: namespaces whose mounts are seen, and that see ours where they are shared;
        mounts_shares: mount(8) knows the cloud's shares."""
        self.cloud, self.name, self.folder, self.within = cloud, name, folder, within
        self.reaches_cloud, self.mounts_shares = reaches_cloud, mounts_shares

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.server_id = stack.enter_context(self.cloud.server(self.name))
            propagation, within = ("unchanged", self.within.enter) if self.within else ("slave", ())
            self.namespaces = stack.enter_context(Namespaces(
                "--net", "--mount", "--propagation", propagation, within=within))
            self.enter = self.namespaces.enter
            self.by_id = os.path.join(self.cloud.info["nodes"], self.server_id, "dev/disk/by-id")
            os.makedirs(self.by_id, exist_ok=True)
            self.namespaces.run(
                "ip link set lo up", "ip addr add %s/32 dev lo" % METADATA[0],
                "mkdir -p /dev/disk/by-id", "mount --bind %s /dev/disk/by-id" % self.by_id)
            if self.mounts_shares:
                self.install_mount_helpers()

            netns = self.namespaces.path("ns/net")
            if self.reaches_cloud:
                stack.enter_context(Relays([(listen_in(netns, ("127.0.0.1", port)), port)
                                            for port in self.cloud.info["ports"].values()]))
            stack.enter_context(MetadataService(
                listen_in(netns, METADATA), "%s/%s" % (self.cloud.info["metadata_url"], self.server_id)))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *problem):
        return self.stack.__exit__(*problem)

    def install_mount_helpers(self):
        """Those of mount(8), over the folder where it looks for them."""
        helpers = os.path.join(self.folder, "sbin")
        os.makedirs(helpers)
        for name in ("mount.nfs", "mount.nfs4", "mount.ceph"):
            os.symlink(os.path.join(os.path.dirname(CLOUD), "mount-share"), os.path.join(helpers, name))
        self.namespaces.run("mount -t overlay -o lowerdir=%s:/usr/sbin overlay /usr/sbin" % helpers)

    def run(self, *command, **options):
        return subprocess.run([*self.enter, *command], **options)


class BareHost:
    """Namespaces in which this machine is a host that OpenStack does not know.

    There is no network but loopback, and so no metadata service; /dev is the machine's own, /etc/iscsi and /etc/nvme
    are not.

    `enter`: the words that run a command there.
    """

    server_id = None

    def __init__(self, name, folder, within=None):
        """folder: for our files; within: namespaces whose mounts are seen, and that see ours where they are shared."""
        self.name, self.folder, self.within = name, folder, within

    def __enter__(self):
        propagation, within = ("unchanged", self.within.enter) if self.within else ("slave", ())
        self.namespaces = Namespaces("--net", "--mount", "--propagation", propagation, within=within)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.namespaces)
            self.enter = self.namespaces.enter
            # names of its own: with those of this machine, all hosts would be one to the storage
            for directory, name, content in (("nvme", "README", ""), (
                    "iscsi", "initiatorname.iscsi", "InitiatorName=iqn.2016-04.com.open-iscsi:%s\n" % self.name)):
                ours = os.path.join(self.folder, directory)
                os.makedirs(ours)
                with open(os.path.join(ours, name), "w") as f:
                    f.write(content)
                self.namespaces.run("mkdir -p /etc/" + directory, "mount --bind %s /etc/%s" % (ours, directory))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *problem):
        return self.stack.__exit__(*problem)
