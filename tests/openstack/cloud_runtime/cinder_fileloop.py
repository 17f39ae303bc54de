"""Cinder volume driver: sparse files, served as loop devices.

driver_volume_type is 'local' (os-brick's LocalConnector: the node sees
data.device_path directly), so it needs no LVM, device-mapper, iSCSI or NVMe.

cinder.conf:

    [loop-a]
    volume_driver = cloud_runtime.cinder_fileloop.FileLoopDriver
    volume_backend_name = loop
    fileloop_dir = /var/lib/x/volumes
    fileloop_capacity_gb = 500

One volume is one file; one *attached* volume is one loop device, shared by all
of its attachments (so a multiattach volume is coherent, as a shared LUN is).
Snapshots and clones are whole files: reflink where the file system can
(xfs, btrfs), a sparse copy elsewhere.
"""

import json
import os
import subprocess
import threading

from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import units

from cinder import context as cinder_context
from cinder import exception
from cinder import interface
from cinder.objects import volume_attachment
from cinder.volume import configuration
from cinder.volume import driver

from cloud_runtime import faults

LOG = logging.getLogger(__name__)

OPTS = [
    cfg.StrOpt("fileloop_dir", default="$state_path/volumes",
               help="Directory of the volume files."),
    cfg.IntOpt("fileloop_capacity_gb", default=1000,
               help="Capacity to report, in GiB (files are sparse)."),
    cfg.BoolOpt("fileloop_direct_io", default=False,
                help="Attach loop devices with direct I/O."),
]
CONF = cfg.CONF
CONF.register_opts(OPTS, group=configuration.SHARED_CONF_GROUP)

# losetup -f races with itself; several backends run in one process
_LOOP_LOCK = threading.Lock()


def _run(*cmd):
    p = subprocess.run(cmd, capture_output=True, text=True)
    if p.returncode:
        raise exception.VolumeBackendAPIException(
            data="%s: %s" % (" ".join(cmd), p.stderr.strip()))
    return p.stdout


def loop_of(path):
    """The loop device that backs *path*, or None."""
    out = _run("losetup", "--json", "--output", "NAME,BACK-FILE", "-j", path)
    for dev in json.loads(out or "{}").get("loopdevices", []):
        if dev["back-file"] == path:
            return dev["name"]
    return None


@interface.volumedriver
class FileLoopDriver(driver.VolumeDriver):
    VERSION = "1.0.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTS)
        self.dir = self.configuration.fileloop_dir
        self.backend = self.configuration.safe_get(
            "volume_backend_name") or "loop"

    @staticmethod
    def get_driver_options():
        return OPTS

    def do_setup(self, context):
        os.makedirs(self.dir, exist_ok=True)

    def check_for_setup_error(self):
        if not os.path.exists("/dev/loop-control"):
            raise exception.VolumeBackendAPIException(
                data="no /dev/loop-control")

    # ---- helpers ----------------------------------------------------------

    def _fault(self, op):
        def exc(msg):
            return exception.VolumeBackendAPIException(data=msg)
        faults.check("cinder", op, exc)

    def local_path(self, volume):
        return os.path.join(self.dir, volume.name)

    def _snap_path(self, snapshot):
        return os.path.join(self.dir, snapshot.name)

    @staticmethod
    def _truncate(path, gb, create=False):
        with open(path, "xb" if create else "r+b") as f:
            f.truncate(gb * units.Gi)

    def _copy(self, src, dst):
        # what a node wrote through the loop device is in its page cache
        dev = loop_of(src)
        if dev:
            _run("blockdev", "--flushbufs", dev)
        _run("cp", "--reflink=auto", "--sparse=always", src, dst + ".tmp")
        os.rename(dst + ".tmp", dst)

    def _attach_loop(self, path):
        with _LOOP_LOCK:
            dev = loop_of(path)
            if dev is None:
                cmd = ["losetup", "--find", "--show"]
                if self.configuration.fileloop_direct_io:
                    cmd.append("--direct-io=on")
                dev = _run(*cmd, path).strip()
            return dev

    def _detach_loop(self, path):
        with _LOOP_LOCK:
            dev = loop_of(path)
            if dev is not None:
                _run("losetup", "--detach", dev)

    @staticmethod
    def _live_attachments(volume):
        """Attachments that reached the backend (they carry a connector)."""
        al = volume_attachment.VolumeAttachmentList.get_all_by_volume_id(
            cinder_context.get_admin_context(), volume.id)
        return [a for a in al if a.connector]

    # ---- volumes ----------------------------------------------------------

    def create_volume(self, volume):
        self._fault("create_volume")
        self._truncate(self.local_path(volume), volume.size, create=True)

    def delete_volume(self, volume):
        self._fault("delete_volume")
        path = self.local_path(volume)
        self._detach_loop(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            LOG.warning("no file for %s, deleted already", volume.name)

    def extend_volume(self, volume, new_size):
        self._fault("extend_volume")
        path = self.local_path(volume)
        self._truncate(path, new_size)
        dev = loop_of(path)
        if dev:
            _run("losetup", "--set-capacity", dev)

    def create_cloned_volume(self, volume, src_vref):
        self._fault("create_cloned_volume")
        self._copy(self.local_path(src_vref), self.local_path(volume))
        if volume.size > src_vref.size:
            self._truncate(self.local_path(volume), volume.size)

    # ---- snapshots --------------------------------------------------------

    def create_snapshot(self, snapshot):
        self._fault("create_snapshot")
        self._copy(self.local_path(snapshot.volume), self._snap_path(snapshot))

    def delete_snapshot(self, snapshot):
        self._fault("delete_snapshot")
        try:
            os.unlink(self._snap_path(snapshot))
        except FileNotFoundError:
            LOG.warning("no file for %s, deleted already", snapshot.name)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._fault("create_volume_from_snapshot")
        self._copy(self._snap_path(snapshot), self.local_path(volume))
        if volume.size > snapshot.volume_size:
            self._truncate(self.local_path(volume), volume.size)

    def revert_to_snapshot(self, context, volume, snapshot):
        self._fault("revert_to_snapshot")
        self._copy(self._snap_path(snapshot), self.local_path(volume))
        self._truncate(self.local_path(volume), volume.size)

    # ---- connections ------------------------------------------------------

    def ensure_export(self, context, volume):
        """Service restart (or machine restart): bring the loop back."""
        if self._live_attachments(volume):
            self._attach_loop(self.local_path(volume))

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        self._detach_loop(self.local_path(volume))

    def validate_connector(self, connector):
        if not connector.get("host"):
            raise exception.InvalidConnectorException(missing="host")

    def initialize_connection(self, volume, connector):
        self._fault("initialize_connection")
        path = self.local_path(volume)
        dev = self._attach_loop(path)
        # CLOUD_CONNECTION_TYPE: what the connection is called instead, for trials of other connectors
        return {"driver_volume_type": os.environ.get("CLOUD_CONNECTION_TYPE") or "local",
                "data": {"device_path": dev,
                         "backing_file": path,
                         "volume_id": volume.id,
                         "target_discovered": False}}

    def terminate_connection(self, volume, connector, **kwargs):
        """True: other attachments still use the loop device."""
        self._fault("terminate_connection")
        return len(self._live_attachments(volume)) > 1

    # ---- the rest ---------------------------------------------------------

    def retype(self, context, volume, new_type, diff, host):
        return True, None

    def _update_volume_stats(self):
        used = 0
        try:
            for e in os.scandir(self.dir):
                if e.name.startswith("volume-"):
                    used += e.stat().st_size
        except FileNotFoundError:
            pass
        used = used / units.Gi
        cap = self.configuration.fileloop_capacity_gb
        self._stats = {
            "volume_backend_name": self.backend,
            "vendor_name": "cloud",
            "driver_version": self.VERSION,
            "storage_protocol": "local",
            "pools": [{
                "pool_name": self.backend,
                "total_capacity_gb": cap,
                "free_capacity_gb": max(0, cap - used),
                "provisioned_capacity_gb": used,
                "allocated_capacity_gb": used,
                "reserved_percentage": 0,
                "max_over_subscription_ratio": "1.0",
                "thin_provisioning_support": False,
                "thick_provisioning_support": True,
                "QoS_support": False,
                "multiattach": True,
                "online_extend_support": True,
                "consistent_group_snapshot_enabled": False,
                "backend_state": "up",
                "filter_function": self.get_filter_function(),
                "goodness_function": self.get_goodness_function(),
            }],
        }
