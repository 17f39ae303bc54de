"""Manila share driver with a real data path on a bare kernel (DHSS=False).

A share is a sparse file with btrfs, loop-mounted below ``fileshare_dir``; its
size is a real limit, extend and shrink are real resizes of the mounted file
system (ext4 can grow online only with CAP_SYS_RESOURCE, which root of a
container may not have), snapshots are copies of the file.  There is no NFS or
Ceph server behind it; export locations look as they do in a real cloud,

    NFS     127.0.0.1:/shares/<share instance id>
    CEPHFS  127.0.0.1:6789:/volumes/_nogroup/<share instance id>

and mount-share (usable as mount.nfs / mount.ceph) turns them into bind
mounts after checking the access rules, which this driver keeps beside the
share in <id>.access.json.

    [files]
    share_driver = cloud_runtime.manila_fileshare.FileShareDriver
    driver_handles_share_servers = False
    fileshare_dir = /var/lib/x/shares
"""

import base64
import json
import os
import secrets
import subprocess

from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import units

from manila import exception
from manila.share import driver

from cloud_runtime import faults

LOG = logging.getLogger(__name__)

OPTS = [
    cfg.StrOpt("fileshare_dir", default="$state_path/shares",
               help="Directory of the share files and their mount points."),
    cfg.StrOpt("fileshare_address", default="127.0.0.1",
               help="Host part of the export locations."),
    cfg.IntOpt("fileshare_capacity_gb", default=1000,
               help="Capacity to report, in GiB (files are sparse)."),
]
CONF = cfg.CONF
CONF.register_opts(OPTS)


def _run(*cmd, ok=(0,)):
    p = subprocess.run(cmd, capture_output=True, text=True)
    if p.returncode not in ok:
        raise exception.ShareBackendException(
            msg="%s: %s" % (" ".join(cmd), p.stderr.strip() or p.stdout))
    return p.stdout


class FileShareDriver(driver.ShareDriver):
    def __init__(self, *args, **kwargs):
        super().__init__(False, *args, config_opts=[OPTS], **kwargs)
        self.dir = self.configuration.safe_get("fileshare_dir")
        self.backend_name = self.configuration.safe_get(
            "share_backend_name") or "FILES"

    def do_setup(self, context):
        os.makedirs(self.dir, exist_ok=True)
        # shared, so that a node in a mount namespace of its own sees the shares
        # that come after it; a mount of its own, as the parent may be private
        if not os.path.ismount(self.dir):
            _run("mount", "--bind", self.dir, self.dir)
            _run("mount", "--make-shared", self.dir)

    def check_for_setup_error(self):
        if not os.path.exists("/dev/loop-control"):
            raise exception.ShareBackendException(msg="no loop devices")

    # ---- helpers ----------------------------------------------------------

    def _fault(self, op):
        faults.check("manila", op,
                     lambda m: exception.ShareBackendException(msg=m))

    def _img(self, id_):
        return os.path.join(self.dir, id_ + ".img")

    def _mnt(self, id_):
        return os.path.join(self.dir, id_)

    def _rules(self, id_):
        return os.path.join(self.dir, id_ + ".access.json")

    def _mount(self, id_):
        mnt = self._mnt(id_)
        os.makedirs(mnt, exist_ok=True)
        if not os.path.ismount(mnt):
            _run("mount", "-t", "btrfs", "-o", "loop", self._img(id_), mnt)

    def _umount(self, id_):
        mnt = self._mnt(id_)
        if os.path.ismount(mnt):
            _run("umount", mnt)

    def _loop(self, id_):
        # not from the mount table: of a copied btrfs the kernel may name the
        # device of its source
        return _run("losetup", "-nO", "NAME", "-j", self._img(id_)).split()[0]

    def _exports(self, share):
        host = self.configuration.safe_get("fileshare_address")
        if share["share_proto"].upper() == "CEPHFS":
            path = "%s:6789:/volumes/_nogroup/%s" % (host, share["id"])
        else:
            path = "%s:/shares/%s" % (host, share["id"])
        return [{"path": path, "is_admin_only": False,
                 "metadata": {"preferred": True}}]

    # ---- shares -----------------------------------------------------------

    def create_share(self, context, share, share_server=None):
        self._fault("create_share")
        if share["share_proto"].upper() not in ("NFS", "CEPHFS"):
            raise exception.InvalidShare(
                reason="protocol %s is not served" % share["share_proto"])
        img = self._img(share["id"])
        with open(img, "xb") as f:
            f.truncate(share["size"] * units.Gi)
        _run("mkfs.btrfs", "-q", "-m", "single", "-d", "single", img)
        self._mount(share["id"])
        return self._exports(share)

    def create_share_from_snapshot(self, context, share, snapshot,
                                   share_server=None, parent_share=None):
        self._fault("create_share_from_snapshot")
        img = self._img(share["id"])
        _run("cp", "--reflink=auto", "--sparse=always",
             self._img(snapshot["id"]), img)
        self._mount(share["id"])
        self._resize(share["id"], share["size"])
        return self._exports(share)

    def _resize(self, id_, gb):
        """Grow or shrink a mounted share: btrfs can do both."""
        dev, img, mnt = self._loop(id_), self._img(id_), self._mnt(id_)
        size = gb * units.Gi
        if size > os.path.getsize(img):
            os.truncate(img, size)
            _run("losetup", "--set-capacity", dev)
            _run("btrfs", "-q", "filesystem", "resize", "max", mnt)
        elif size < os.path.getsize(img):
            _run("btrfs", "-q", "filesystem", "resize", str(size), mnt)
            os.truncate(img, size)
            _run("losetup", "--set-capacity", dev)

    def delete_share(self, context, share, share_server=None):
        self._fault("delete_share")
        self._umount(share["id"])
        for p in (self._img(share["id"]), self._rules(share["id"])):
            if os.path.exists(p):
                os.unlink(p)
        if os.path.isdir(self._mnt(share["id"])):
            os.rmdir(self._mnt(share["id"]))

    def ensure_shares(self, context, shares):
        for s in shares:
            self._mount(s["id"])
        return {s["id"]: {"export_locations": self._exports(s)}
                for s in shares}

    def extend_share(self, share, new_size, share_server=None):
        self._fault("extend_share")
        self._resize(share["id"], new_size)

    def shrink_share(self, share, new_size, share_server=None):
        self._fault("shrink_share")
        try:
            self._resize(share["id"], new_size)
        except exception.ShareBackendException as e:
            LOG.error("%s", e)          # no space to move data to
            raise exception.ShareShrinkingPossibleDataLoss(
                share_id=share["id"])

    # ---- snapshots --------------------------------------------------------

    def create_snapshot(self, context, snapshot, share_server=None):
        self._fault("create_snapshot")
        src = snapshot["share_instance_id"]
        _run("fsfreeze", "--freeze", self._mnt(src))
        try:
            _run("cp", "--reflink=auto", "--sparse=always",
                 self._img(src), self._img(snapshot["id"]))
        finally:
            _run("fsfreeze", "--unfreeze", self._mnt(src))
        return {"provider_location": snapshot["id"]}

    def delete_snapshot(self, context, snapshot, share_server=None):
        self._fault("delete_snapshot")
        if os.path.exists(self._img(snapshot["id"])):
            os.unlink(self._img(snapshot["id"]))

    def revert_to_snapshot(self, context, snapshot, share_access_rules,
                           snapshot_access_rules, share_server=None):
        id_ = snapshot["share_instance_id"]
        size = os.path.getsize(self._img(id_)) // units.Gi
        self._umount(id_)
        try:
            _run("cp", "--reflink=auto", "--sparse=always",
                 self._img(snapshot["id"]), self._img(id_))
        finally:
            self._mount(id_)
        self._resize(id_, size)

    # ---- access -----------------------------------------------------------

    def update_access(self, context, share, access_rules, add_rules,
                      delete_rules, update_rules, share_server=None):
        self._fault("update_access")
        want = "cephx" if share["share_proto"].upper() == "CEPHFS" else "ip"
        path = self._rules(share["id"])
        old = {}
        if os.path.exists(path):
            old = {(r["type"], r["to"]): r for r in json.load(open(path))}
        updates, rules = {}, []
        for r in access_rules:
            if r["access_type"] != want:
                updates[r["access_id"]] = {"state": "error"}
                LOG.error("access type %s with %s", r["access_type"],
                          share["share_proto"])
                continue
            rule = {"type": r["access_type"], "to": r["access_to"],
                    "level": r["access_level"]}
            if want == "cephx":
                known = old.get(("cephx", r["access_to"]), {})
                rule["key"] = known.get("key") or base64.b64encode(
                    secrets.token_bytes(28)).decode()
                updates[r["access_id"]] = {"access_key": rule["key"],
                                           "state": "active"}
            rules.append(rule)
        with open(path + ".tmp", "w") as f:
            json.dump(rules, f)
        os.replace(path + ".tmp", path)
        return updates

    # ---- the rest ---------------------------------------------------------

    def _update_share_stats(self):
        used = sum(e.stat().st_size for e in os.scandir(self.dir)
                   if e.name.endswith(".img")) / units.Gi
        cap = self.configuration.safe_get("fileshare_capacity_gb")
        super()._update_share_stats({
            "share_backend_name": self.backend_name,
            "vendor_name": "cloud",
            "storage_protocol": "NFS_CEPHFS",
            "snapshot_support": True,
            "create_share_from_snapshot_support": True,
            "revert_to_snapshot_support": True,
            "pools": [{
                "pool_name": self.backend_name,
                "total_capacity_gb": cap,
                "free_capacity_gb": max(0, cap - used),
                "allocated_capacity_gb": used,
                "provisioned_capacity_gb": used,
                "max_over_subscription_ratio": 1.0,
                # all three are required, or the scheduler raises KeyError
                "reserved_percentage": 0,
                "reserved_snapshot_percentage": 0,
                "reserved_share_extend_percentage": 0,
                "thin_provisioning": False,
            }],
        })
