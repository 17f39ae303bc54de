"""Nova virt driver: nova's FakeDriver, plus a node that can see its disks.

compute_driver = loopvirt.LoopDriver   (serve.py makes nova.virt.loopvirt)

An attached volume (driver_volume_type 'local') appears as the symlink

    $CLOUD_STATE/nodes/<server id>/dev/disk/by-id/virtio-<volume id, 20>

and, where CLOUD_GLOBAL_BYID=1, in /dev/disk/by-id too, under the name that
udev gives a virtio disk in a KVM guest.  Detaching removes it.
"""

import os
import threading
import uuid

from nova.compute import power_state
from nova.virt import block_device
from nova.virt import fake

from cloud_runtime import faults


def _id(node):
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, node + ".cloud"))


# nova detaches from the hypervisor only where CONF.host == instance.host.  Our
# process is several compute hosts: let block_device.py see the one it acts for.
_tl = threading.local()


class _Conf:
    def __init__(self, conf):
        self._conf = conf

    def __getattr__(self, name):
        if name == "host" and getattr(_tl, "host", None):
            return _tl.host
        return getattr(self._conf, name)


block_device.CONF = _Conf(block_device.CONF)
_orig_do_detach = block_device.DriverVolumeBlockDevice._do_detach


def _do_detach(self, context, instance, volume_api, virt_driver, *a, **kw):
    _tl.host = getattr(virt_driver, "_host", None)
    try:
        return _orig_do_detach(self, context, instance, volume_api,
                               virt_driver, *a, **kw)
    finally:
        _tl.host = None


block_device.DriverVolumeBlockDevice._do_detach = _do_detach


class LoopDriver(fake.FakeDriver):
    # ---- an identity that survives a restart -------------------------------

    def get_available_resource(self, nodename):
        res = super().get_available_resource(nodename)
        res["uuid"] = _id(nodename)
        return res

    def get_nodenames_by_uuid(self, refresh=False):
        return {_id(n): n for n in self.get_available_nodes()}

    def process_instances_at_startup(self, context, instances):
        for i in instances:
            state = (power_state.SHUTDOWN if i.vm_state == "stopped"
                     else power_state.RUNNING)
            self.instances[i.uuid] = fake.FakeInstance(i.name, state, i.uuid)
        return instances

    # ---- disks -------------------------------------------------------------

    @staticmethod
    def _links(instance, connection_info):
        vol = (connection_info.get("serial") or
               connection_info["data"].get("volume_id", "unknown"))
        name = "virtio-" + vol[:20]
        yield os.path.join(os.environ["CLOUD_STATE"], "nodes",
                           instance.uuid, "dev/disk/by-id", name)
        if os.environ.get("CLOUD_GLOBAL_BYID") == "1":
            yield os.path.join("/dev/disk/by-id", name)

    def _plug(self, instance, connection_info):
        dev = connection_info["data"].get("device_path")
        if not dev:
            return
        for link in self._links(instance, connection_info):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            if not os.path.lexists(link):
                os.symlink(dev, link)

    def _unplug(self, instance, connection_info):
        for link in self._links(instance, connection_info):
            if os.path.lexists(link):
                os.unlink(link)

    def spawn(self, context, instance, image_meta, injected_files,
              admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None):
        faults.check("nova", "spawn")
        super().spawn(context, instance, image_meta, injected_files,
                      admin_password, allocations, network_info,
                      block_device_info, power_on, accel_info)
        for bdm in (block_device_info or {}).get("block_device_mapping", []):
            self._plug(instance, bdm["connection_info"])

    def attach_volume(self, context, connection_info, instance, mountpoint,
                      disk_bus=None, device_type=None, encryption=None):
        faults.check("nova", "attach_volume")
        super().attach_volume(context, connection_info, instance, mountpoint,
                              disk_bus, device_type, encryption)
        self._plug(instance, connection_info)

    def detach_volume(self, context, connection_info, instance, mountpoint,
                      encryption=None):
        faults.check("nova", "detach_volume")
        super().detach_volume(context, connection_info, instance, mountpoint,
                              encryption)
        self._unplug(instance, connection_info)

    def extend_volume(self, context, connection_info, instance,
                      requested_size):
        """cinder's driver has resized the loop device already."""
        faults.check("nova", "extend_volume")

    def destroy(self, context, instance, network_info, block_device_info=None,
                destroy_disks=True, destroy_secrets=True):
        super().destroy(context, instance, network_info, block_device_info,
                        destroy_disks, destroy_secrets)
        for bdm in (block_device_info or {}).get("block_device_mapping", []):
            self._unplug(instance, bdm["connection_info"])
