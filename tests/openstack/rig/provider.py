"""What the driver's providers need of the cloud."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Provider:
    name: str
    services: tuple         # of the cloud
    parameters: dict        # of a StorageClass
    collections: tuple      # what a driver makes: (service, collection) each
    mounts_shares: bool = False
    attach: str = "nova"    # or "host": nodes that are no servers
    node_options: tuple = ()    # of the driver on a node; {address} is from where it mounts shares


CINDER = Provider("cinder", ("cinder", "nova"), {},
                  (("volume", "volumes"), ("volume", "snapshots"), ("volume", "backups"), ("volume", "attachments")))

PROVIDERS = {
    "cinder": CINDER,
    "undercloud": dataclasses.replace(CINDER, services=("cinder",), attach="host"),
    "manila": Provider("manila", ("cinder", "nova", "manila"), {"type": "default"},
                       (("share", "shares"), ("share", "snapshots")), mounts_shares=True,
                       node_options=("--share-address", "{address}")),
}
