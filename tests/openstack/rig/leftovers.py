"""What is still there after a test, in the cloud and on this machine."""

import glob
import json
import os
import subprocess

from .terminal import say


def in_cloud(cluster, before):
    """What the cloud has and had not before."""
    left = cluster.cloud.more_than(before, cluster.provider.collections)
    return ["%s %s (%s)" % (kind[:-1], id_, status) for (_, kind, id_), status in left.items()]


def on_servers(cluster):
    """What Nova says is attached to the nodes, and the disks that they see."""
    found = []
    for host in cluster.hosts:
        attached = cluster.cloud.api("GET", "compute", "/servers/%s/os-volume_attachments" % host.server_id)
        found += ["volume %s on %s" % (a["volumeId"], host.name) for a in attached["volumeAttachments"]]
        found += ["disk %s on %s" % (name, host.name) for name in os.listdir(host.by_id)]
    return found


def mounts(cluster):
    """What is mounted where the nodes mount volumes, on any of them."""
    namespaces = [cluster.orchestrator, *(host.namespaces for host in cluster.hosts)]
    return ["mount " + point for point in sorted({p for n in namespaces for p in n.mounts_below(cluster.work)})]


def loop_devices(cluster):
    """Loop devices of the cloud's volumes."""
    out = subprocess.run(["losetup", "--json", "--output", "NAME,BACK-FILE"], stdout=subprocess.PIPE,
                         text=True, check=True).stdout
    # a share's device stays as long as the share; it is found as such
    volumes = os.path.join(cluster.cloud.info["state"], "volumes") + "/"
    return ["loop device %(name)s" % d for d in json.loads(out or "{}").get("loopdevices", [])
            if (d["back-file"] or "").startswith(volumes)]


def files(cluster):
    """What the orchestrator left where volumes were mounted."""
    return ["file " + os.path.join(cluster.work, name) for name in os.listdir(cluster.work)]


def records(cluster):
    """The nodes' records of staged volumes."""
    return ["record " + path for host in cluster.hosts
            for path in glob.glob(os.path.join(host.folder, "plugin", "**", "*.json"), recursive=True)]


def take_stock(cluster, before):
    """[(what was looked for, [what was found])]: empty lists are good."""
    collections = [kind for _, kind in cluster.provider.collections]
    return [(", ".join(collections) + " in the cloud", in_cloud(cluster, before)),
            ("disks attached to the servers", on_servers(cluster)),
            ("mounts on the nodes", mounts(cluster)),
            ("loop devices of volumes", loop_devices(cluster)),
            ("records of staged volumes on the nodes", records(cluster)),
            ("files where volumes were mounted", files(cluster))]


def show(stock):
    """Print it; True if nothing is left."""
    for what, found in stock:
        say("   %-58s %s" % (what, "%d LEFT" % len(found) if found else "none"))
        for one in found:
            say("       " + one)
    return not any(found for _, found in stock)
