"""Fill a fresh cloud, in two steps; each may be repeated.

    python -m cloud_runtime.populate identity   projects, users, catalogue, info.json
    python -m cloud_runtime.populate types      volume and share types, flavor, zone az2
"""

import json
import os
import sys
import time

from cloud_runtime.api import Api, ApiError

CEPH = bool(os.environ["CLOUD_CEPH"])
ISCSI = bool(os.environ["CLOUD_ISCSI"])
PORTS = json.loads(os.environ["CLOUD_PORTS"])
STATE = os.environ["CLOUD_STATE"]


def url(service, path=""):
    return "http://127.0.0.1:%d%s" % (PORTS[service], path)


def identity():
    api = Api(url("keystone", "/v3"), user="admin")

    def ensure(kind, plural, body, **match):
        query = "&".join("%s=%s" % kv for kv in match.items())
        found = api("GET", "identity", "/%s?%s" % (plural, query))[plural]
        return found[0] if found else api("POST", "identity", "/" + plural, {kind: body})[kind]

    def project(name):
        return ensure("project", "projects", {"name": name, "domain_id": "default"}, name=name)

    def user(name):
        return ensure("user", "users", {"name": name, "password": name,
                                        "domain_id": "default"}, name=name)

    def grant(project, user, *roles):
        for name in roles:
            role = ensure("role", "roles", {"name": name}, name=name)
            api("PUT", "identity", "/projects/%s/users/%s/roles/%s" % (
                project["id"], user["id"], role["id"]))

    demo = project("demo")
    grant(project("service"), user("service"), "admin", "service")
    grant(demo, user("demo"), "member", "reader")
    grant(demo, user("admin"), "admin")
    grant(project("other"), user("other"), "member")

    for name, kind, where in (
            # both names of the block storage service: clients differ
            ("cinderv3", "volumev3", url("cinder", "/v3/%(project_id)s")),
            ("cinder", "block-storage", url("cinder", "/v3/%(project_id)s")),
            ("manilav2", "sharev2", url("manila", "/v2")),
            ("manila", "shared-file-system", url("manila", "/v2")),
            ("nova", "compute", url("nova", "/v2.1")),
            ("placement", "placement", url("placement")),
            ("neutron", "network", url("neutron")),
            ("glance", "image", url("glance"))):
        service = ensure("service", "services", {"name": name, "type": kind}, type=kind)
        for interface in ("public", "internal"):
            ensure("endpoint", "endpoints", {
                "service_id": service["id"], "interface": interface,
                "region": "RegionOne", "url": where},
                service_id=service["id"], interface=interface)

    # an application credential of demo, as a CSI driver would use
    as_demo = Api(url("keystone", "/v3"), user="demo")
    user_id = as_demo.info["user"]["id"]
    path = "/users/%s/application_credentials" % user_id
    credentials = as_demo("GET", "identity", path)["application_credentials"]
    if not credentials:
        credentials = [as_demo("POST", "identity", path, {"application_credential": {
            "name": "csi", "secret": "csi-secret", "roles": [{"name": "member"}]}})[
                "application_credential"]]
    with open(os.path.join(STATE, "info.json"), "w") as f:
        json.dump({
            "auth_url": url("keystone", "/v3"), "region": "RegionOne",
            "demo_project_id": demo["id"], "demo_user_id": user_id,
            "app_cred_id": credentials[0]["id"], "app_cred_secret": "csi-secret",
            "metadata_url": url("metadata"), "ports": PORTS, "state": STATE,
            "nodes": os.path.join(STATE, "nodes")}, f, indent=1)


def types():
    api = Api(url("keystone", "/v3"), user="admin")

    def names(service, path, key):
        return {t["name"] for t in api("GET", service, path)[key]}

    volume_types = {"loop": {"volume_backend_name": "loop"},
                    "loop-b": {"volume_backend_name": "loop-b"},
                    "multi": {"volume_backend_name": "loop", "multiattach": "<is> True"}}
    share_types = {"default": "FILES", "dummy": "DUMMY"}
    if CEPH:
        volume_types["rbd"] = {"volume_backend_name": "rbd"}
        volume_types["rbd-multi"] = {"volume_backend_name": "rbd", "multiattach": "<is> True"}
        share_types.update(cephfs="CEPHFS", cephnfs="CEPHNFS")

    if ISCSI:
        volume_types["iscsi"] = {"volume_backend_name": "iscsi"}

    for name in volume_types.keys() - names("volume", "/types", "volume_types"):
        api("POST", "volume", "/types", {"volume_type": {
            "name": name, "extra_specs": volume_types[name]}})
    for name in share_types.keys() - names("share", "/types", "share_types"):
        backend = share_types[name]
        api("POST", "share", "/types", {"share_type": {
            "name": name, "share_type_access:is_public": True,
            "extra_specs": {
                "driver_handles_share_servers": "False",
                "share_backend_name": backend,
                "snapshot_support": "True",
                "create_share_from_snapshot_support": "True",
                # the CephFS driver cannot revert
                "revert_to_snapshot_support": str(not backend.startswith("CEPH"))}}})

    if "tiny" not in names("compute", "/flavors", "flavors"):
        # with a disk of 0, servers could boot from a volume only
        api("POST", "compute", "/flavors", {"flavor": {
            "id": "1", "name": "tiny", "ram": 64, "vcpus": 1, "disk": 1}})
    # an aggregate for the default zone too: without one, Nova takes a server that
    # asks for zone nova as one that asks for none, and puts it anywhere
    zones = {"nova": "compute-1", "az2": "compute-2"}
    for zone in zones.keys() - names("compute", "/os-aggregates", "aggregates"):
        made = api("POST", "compute", "/os-aggregates", {"aggregate": {
            "name": zone, "availability_zone": zone}})["aggregate"]
        deadline = time.monotonic() + 30
        while True:
            try:
                api("POST", "compute", "/os-aggregates/%s/action" % made["id"],
                    {"add_host": {"host": zones[zone]}})
                break
            except ApiError:        # the scheduler has not mapped the host yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


if __name__ == "__main__":
    {"identity": identity, "types": types}[sys.argv[1]]()
