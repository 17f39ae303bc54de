"""Cinder volume driver: sparse files, exported by Cinder's own target helper (TgtAdm: tgtadm, tgt-admin, tgtd).

What the LVM driver does, on files instead of logical volumes, which need device-mapper. Everything that a host gets to
know (IQN, portal, LUN, CHAP) comes from Cinder's own code in cinder.volume.targets.

tgtd asks for a file's size once, so Cinder makes the target of a volume that has grown anew, under who is logged in.
"""

from oslo_utils import importutils

from cinder import interface

from cloud_runtime.cinder_fileloop import FileLoopDriver


@interface.volumedriver
class FileIscsiDriver(FileLoopDriver):
    VERSION = "1.0.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        helper = self.target_mapping[self.configuration.safe_get("target_helper")]
        self.target = importutils.import_object(helper, configuration=self.configuration, db=self.db,
                                                executor=self._execute)

    def extend_volume(self, volume, new_size):
        super().extend_volume(volume, new_size)
        self.target.extend_target(volume)

    # ---- connections: no loop device is in between ----

    def ensure_export(self, context, volume):
        """Service or target restart."""
        if volume.provider_location:
            return self.target.ensure_export(context, volume, self.local_path(volume))

    def create_export(self, context, volume, connector):
        exported = self.target.create_export(context, volume, self.local_path(volume))
        return {"provider_location": exported["location"], "provider_auth": exported["auth"]}

    def remove_export(self, context, volume):
        self.target.remove_export(context, volume)

    def initialize_connection(self, volume, connector):
        self._fault("initialize_connection")
        return self.target.initialize_connection(volume, connector)

    def terminate_connection(self, volume, connector, **kwargs):
        self._fault("terminate_connection")
        return self.target.terminate_connection(volume, connector, **kwargs)

    def validate_connector(self, connector):
        return self.target.validate_connector(connector)

    def _update_volume_stats(self):
        super()._update_volume_stats()
        self._stats["storage_protocol"] = "iSCSI"
        for pool in self._stats["pools"]:
            pool["multiattach"] = False
