"""What the driver's providers need of the cloud."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Provider:
    name: str
    services: tuple         # of the cloud
    parameters: dict        # of a StorageClass
    collections: tuple      # what a driver makes: (service, collection) each
    mounts_shares: bool = False
    node_options: tuple = ()    # of the driver on a node; {address} is from where it mounts shares


PROVIDERS = {p.name: p for p in (
    Provider("cinder", ("cinder", "nova"), {},
             (("volume", "volumes"), ("volume", "snapshots"), ("volume", "backups"), ("volume", "attachments"))),
    Provider("manila", ("cinder", "nova", "manila"), {"type": "default"},
             (("share", "shares"), ("share", "snapshots")), mounts_shares=True,
             node_options=("--share-address", "{address}")),
)}
