"""The driver in the cluster, from the manifests of deploy/csi."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

from .cluster import HERE, HOME, PROJECT, Missing, Refused, until
from cloud_runtime.api import Api

DEPLOY = os.path.join(PROJECT, "deploy", "csi")
IMAGE = "docker.io/library/fuxi-csi:0.1.0"
NAMESPACE = "kube-system"
CONTROLLER, NODE = "fuxi-csi-cinder-controller", "fuxi-csi-cinder-node"
OVERCLOUD, UNDERCLOUD, SHARES = "overlays/overcloud", "overlays/undercloud", "overlays/manila"
# calls that say nothing of what went wrong
ROUTINE = (" GetPluginInfo ", " NodeGetInfo ", " Probe ")
# this machine, as pods reach it: see relay.py
GATEWAY = os.environ.get("CLUSTER_NET", "10.77.0") + ".254"


def find_driver():
    """This project's program: $FUXI_CSI, or the release build."""
    path = os.environ.get("FUXI_CSI") or os.path.join(PROJECT, "target", "release", "fuxi-csi")
    if not os.path.exists(path):
        sys.exit("no driver: build it (cargo build --release) or set FUXI_CSI")
    return os.path.abspath(path)


def unpacked_packages():
    """What the image holds and this machine has not: packages that are unpacked, once, and not installed."""
    with open(os.path.join(DEPLOY, "image", "programs"), "rb") as f:
        folder = os.path.join(HOME, "packages-" + hashlib.sha256(f.read()).hexdigest()[:12])
    if not os.path.isdir(folder):
        shutil.rmtree(folder + ".new", ignore_errors=True)
        subprocess.run([os.path.join(DEPLOY, "image", "unpack"), os.path.join(DEPLOY, "image", "programs"), folder + ".new"],
                       check=True, stdout=subprocess.DEVNULL)
        os.rename(folder + ".new", folder)
    return folder


def load_image(cluster):
    """The driver's image, made of the files that deploy/csi/Dockerfile puts into it."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, "root")
        subprocess.run([os.path.join(DEPLOY, "image", "collect"), os.path.join(DEPLOY, "image", "programs"), root,
                        find_driver()], check=True, env=dict(os.environ, UNPACKED=unpacked_packages()))
        # as a tar, which keeps links
        subprocess.run(["tar", "-C", root, "-cf", root + ".tar", "."], check=True)
        cluster.command("load-image", IMAGE, "--entrypoint", "/usr/bin/fuxi-csi", "--user", "65532:65532",
                        "--base", root + ".tar")


def as_pods_see(url):
    """The address of a service of the cloud, which listens on this machine's loopback."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc="%s:%d" % (GATEWAY, parts.port)))


def give_credential(cluster, cloud, wrong=False):
    """The Secret of the controller, with a credential of its own. The catalogue's addresses are of no use to its pods."""
    credential, its_secret = cloud.credential()
    urls = Api(cloud.info["auth_url"], app_id=credential, app_secret=its_secret).urls
    values = {"auth-url": as_pods_see(cloud.info["auth_url"]), "region": cloud.info["region"],
              "application-credential-id": credential, "application-credential-secret": "wrong" if wrong else its_secret,
              "block-storage-endpoint-override": as_pods_see(urls["block-storage"]),
              "compute-endpoint-override": as_pods_see(urls["compute"]),
              "shared-file-system-endpoint-override": as_pods_see(urls["shared-file-system"])}
    text = "[Global]\n" + "".join("%s = %s\n" % pair for pair in values.items())
    cluster.apply(secret("cloud-config", **{"cloud.conf": text}))


def credential_in_use(cluster):
    """The id of the application credential in that Secret."""
    data = cluster.get("Secret", "cloud-config", NAMESPACE)["data"]["cloud.conf"]
    return base64.b64decode(data).decode().split("application-credential-id = ")[1].split("\n")[0]


def secrets_in_pods(cluster):
    """What the controllers read as their cloud.conf."""
    for pod in pods(cluster, CONTROLLER):
        path = "/proc/%d/root/var/lib/kubelet/pods/%s/volumes/kubernetes.io~secret/cloud-config/cloud.conf" % (
            cluster.pid(pod["spec"]["nodeName"]), pod["metadata"]["uid"])
        with open(path) as f:
            yield f.read()


def secret(name, **files):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in files.items()}}


def install(cluster, cloud, overlay=OVERCLOUD):
    """The first overlay of a cluster, and what all need: wait until every node knows the driver."""
    load_image(cluster)
    manifests = cluster.kubectl("kustomize", os.path.join(DEPLOY, overlay))
    snapshots = os.path.join(cluster.bin, "controller-of-snapshots")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rendered:
        rendered.write(manifests)
        rendered.flush()
        cluster.command("load-sidecars", rendered.name, os.path.join(snapshots, "setup-snapshot-controller.yaml"))
    cluster.kubectl("apply", "--server-side", "-f", os.path.join(cluster.bin, "crd"))
    until("the snapshot API is there", lambda: has_snapshots(cluster), 30)
    cluster.kubectl("apply", *(word for name in sorted(os.listdir(snapshots)) if not name.startswith("kust")
                               for word in ("-f", os.path.join(snapshots, name))))
    give_credential(cluster, cloud)
    # the image has the same name as the last one
    restart(cluster, CONTROLLER)
    restart(cluster, NODE)
    cluster.kubectl("apply", "-f", "-", data=manifests)
    wait_ready(cluster)


def has_snapshots(cluster):
    try:
        return cluster.list("VolumeSnapshotClass") is not None
    except (Missing, Refused):      # not there yet, or being made ready
        return False


def add(cluster, overlay, instance="cinder"):
    """One more overlay, or another one in the place of that instance's, which is away."""
    cluster.kubectl("apply", "-k", os.path.join(DEPLOY, overlay))
    wait_ready(cluster, instance=instance)


def add_shares(cluster, cloud, overlay=SHARES, instance="manila"):
    """An overlay of Manila. Its nodes' mount.nfs is the one of tests/cluster/shares: there is no NFS server here."""
    with tempfile.TemporaryDirectory(dir=cluster.state) as folder:
        tools = os.path.join(cluster.state, "mount-tools")
        os.makedirs(tools, exist_ok=True)
        for tool in (os.path.join(HERE, "shares", "mount.nfs"), shutil.which("busybox")):
            shutil.copy(tool, tools)
        with open(os.path.join(HERE, "shares", "kustomization.yaml")) as f:
            text = f.read()
        for word, value in (("OVERLAY", os.path.relpath(os.path.join(DEPLOY, overlay), folder)), ("TOOLS", tools),
                            ("CLOUD", os.path.join(cloud.info["state"], "shares"))):
            text = text.replace(word, value)
        with open(os.path.join(folder, "kustomization.yaml"), "w") as f:
            f.write(text)
        cluster.kubectl("apply", "-k", folder)
    wait_ready(cluster, instance=instance)


def pods(cluster, name):
    """Of a controller or of the nodes, by its name: fuxi-csi-INSTANCE-COMPONENT, perhaps with a suffix."""
    provider, component, suffix = re.fullmatch(r"fuxi-csi-(\w+)-(controller|node)(-\w+)?", name).groups("")
    return cluster.list("Pod", NAMESPACE, labelSelector=(
        "app.kubernetes.io/name=fuxi-csi,app.kubernetes.io/instance=%s%s,app.kubernetes.io/component=%s" % (
            provider, suffix, component)))


def names(instance):
    """Of an instance's controller and node: those of manila-nfs end with -nfs."""
    provider, dash, suffix = instance.partition("-")
    return ["fuxi-csi-%s-%s%s%s" % (provider, component, dash, suffix) for component in ("controller", "node")]


def ready(pod):
    return not pod["metadata"].get("deletionTimestamp") and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def driver_name(cluster, instance="cinder"):
    env = cluster.get("DaemonSet", names(instance)[1], NAMESPACE)["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(e["value"] for e in env if e["name"] == "FUXI_CSI_DRIVER_NAME")


def wait_ready(cluster, seconds=120, instance="cinder"):
    """Both parts run everywhere and the kubelets know the driver."""
    controller, node = names(instance)

    def complete():
        controllers, nodes = pods(cluster, controller), pods(cluster, node)
        return (len(controllers) == cluster.get("Deployment", controller, NAMESPACE)["spec"]["replicas"]
                and len(nodes) == len(cluster.nodes()) and all(map(ready, controllers + nodes)))
    try:
        until("controller and nodes of the driver are ready", complete, seconds)
    except TimeoutError as error:
        raise TimeoutError("%s\n%s\n%s" % (error, cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide"),
                                           cluster.kubectl("-n", NAMESPACE, "get", "events"))) from None
    name = driver_name(cluster, instance)
    until("every node is registered with " + name,
          lambda: all(registration(cluster, node, name) for node in cluster.nodes()), 60)


def registration(cluster, node, name):
    """What CSINode says of the driver on a node, or None."""
    found = cluster.get("CSINode", node)
    return next((d for d in (found or {"spec": {}})["spec"].get("drivers") or () if d["name"] == name), None)


def restart(cluster, name):
    """Kill the pods of the controller or the nodes at once; does not wait for new ones."""
    for pod in pods(cluster, name):
        cluster.delete("Pod", pod["metadata"]["name"], NAMESPACE, gracePeriodSeconds=0)


def reloads(cluster):
    """How often each controller has read a changed configuration."""
    return [cluster.kubectl("-n", NAMESPACE, "logs", pod["metadata"]["name"], "-c", "fuxi-csi").count("was read again")
            for pod in pods(cluster, CONTROLLER)]


def logs(cluster, name, lines=40):
    """The driver's last words, of all its pods."""
    text = ""
    for pod in pods(cluster, name):
        said = cluster.kubectl("-n", NAMESPACE, "logs", pod["metadata"]["name"], "-c", "fuxi-csi", check=False)
        told = [line for line in said.splitlines() if not any(call in line for call in ROUTINE)]
        text += "\n".join(["--- " + pod["metadata"]["name"], *told[-lines:], ""])
    return text


def remove(cluster, overlay=OVERCLOUD, instance="cinder"):
    cluster.kubectl("delete", "--ignore-not-found", "-k", os.path.join(DEPLOY, overlay))
    until("the driver's pods are gone", lambda: not any(pods(cluster, name) for name in names(instance)), 90)
