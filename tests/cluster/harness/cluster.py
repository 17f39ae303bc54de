"""The running cluster: its API, its nodes."""

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PROJECT = os.path.dirname(os.path.dirname(HERE))
PROGRAM = os.path.join(HERE, "cluster")
HOME = os.environ.get("CLUSTER_HOME", "/var/tmp/fuxi-cluster")
os.environ.setdefault("CLOUD_HOME", os.path.join(HOME, "cloud"))

# kind: API group and version, plural, whether it lives in a namespace
KINDS = {
    "Namespace": ("api/v1", "namespaces", False),
    "Node": ("api/v1", "nodes", False),
    "Pod": ("api/v1", "pods", True),
    "Event": ("api/v1", "events", True),
    "Secret": ("api/v1", "secrets", True),
    "ServiceAccount": ("api/v1", "serviceaccounts", True),
    "PersistentVolume": ("api/v1", "persistentvolumes", False),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims", True),
    "StatefulSet": ("apis/apps/v1", "statefulsets", True),
    "Deployment": ("apis/apps/v1", "deployments", True),
    "DaemonSet": ("apis/apps/v1", "daemonsets", True),
    "Lease": ("apis/coordination.k8s.io/v1", "leases", True),
    "StorageClass": ("apis/storage.k8s.io/v1", "storageclasses", False),
    "CSIDriver": ("apis/storage.k8s.io/v1", "csidrivers", False),
    "CSINode": ("apis/storage.k8s.io/v1", "csinodes", False),
    "VolumeAttachment": ("apis/storage.k8s.io/v1", "volumeattachments", False),
    "VolumeSnapshot": ("apis/snapshot.storage.k8s.io/v1", "volumesnapshots", True),
    "VolumeSnapshotContent": ("apis/snapshot.storage.k8s.io/v1", "volumesnapshotcontents", False),
    "VolumeSnapshotClass": ("apis/snapshot.storage.k8s.io/v1", "volumesnapshotclasses", False),
}


class Missing(Exception):
    """There is no such object."""


class Refused(Exception):
    """The API server says no."""


def reason(error):
    """What the API server says; of a kind that it does not serve yet it speaks plain text."""
    text = error.read().decode(errors="replace")
    try:
        return json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text.strip() or str(error)


class Cluster:
    """The cluster that `cluster start` started."""

    def __init__(self):
        self.state = os.path.join(HOME, "state")
        environment = self.command("env").split("PATH=")[1]
        self.bin = environment.split(":")[0]
        self.kubeconfig = os.path.join(self.state, "kubeconfig")
        with open(self.kubeconfig) as f:
            text = f.read()
        self.url = text.split('server: "')[1].split('"')[0]
        self.token = text.split("token: ")[1].split("}")[0]
        self.tls = ssl.create_default_context(cafile=os.path.join(self.state, "pki/apiserver.crt"))
        self.tls.check_hostname = False

    # --- programs

    @staticmethod
    def command(*words, check=True, data=None):
        """`cluster WORDS`; what it prints."""
        done = subprocess.run([PROGRAM, *words], input=data, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError("cluster %s: %s%s" % (" ".join(words), done.stdout, done.stderr))
        return done.stdout

    def kubectl(self, *words, check=True, data=None):
        done = subprocess.run([os.path.join(self.bin, "kubectl"), "--kubeconfig", self.kubeconfig, *words],
                              input=data, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError("kubectl %s: %s" % (" ".join(words), done.stderr or done.stdout))
        return done.stdout

    # --- the API

    def call(self, method, path, body=None, kind="application/json", **query):
        if query:
            path += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(
            self.url + "/" + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer " + self.token, "Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise (Missing if error.code == 404 else Refused)("%s %s: %s" % (method, path, reason(error))) from None

    @staticmethod
    def path(kind, name=None, namespace=None):
        group, plural, namespaced = KINDS[kind]
        parts = [group, *(["namespaces", namespace] if namespaced and namespace else []), plural]
        return "/".join(parts + ([name] if name else []))

    def get(self, kind, name, namespace=None):
        """The object, or None."""
        try:
            return self.call("GET", self.path(kind, name, namespace))
        except Missing:
            return None

    def list(self, kind, namespace=None, **query):
        return self.call("GET", self.path(kind, None, namespace), **query)["items"]

    def apply(self, *objects):
        for each in objects:
            meta = each["metadata"]
            self.call("PATCH", self.path(each["kind"], meta["name"], meta.get("namespace")), each,
                      "application/apply-patch+yaml", fieldManager="tests", force="true")

    def patch(self, kind, name, namespace, change):
        self.call("PATCH", self.path(kind, name, namespace), change, "application/merge-patch+json")

    def delete(self, kind, name, namespace=None, **options):
        """Ask for its end; does not wait."""
        try:
            self.call("DELETE", self.path(kind, name, namespace), options or None)
        except Missing:
            pass

    # --- nodes

    def nodes(self):
        """Names of the nodes that run."""
        return sorted(name for name in os.listdir(os.path.join(self.state, "nodes")) if self.pid(name))

    def pid(self, node):
        """The first process of a node's namespaces, as this machine counts, or None."""
        try:
            with open(os.path.join(self.state, "nodes", node, "pid")) as f:
                pid, start = f.read().split()
            with open("/proc/%s/stat" % pid) as f:
                return int(pid) if f.read().rsplit(")", 1)[1].split()[19] == start else None
        except (OSError, ValueError):
            return None

    def server(self, node):
        """The id of the Nova server that the node is."""
        with open(os.path.join(self.state, "nodes", node, "server")) as f:
            return f.read().strip()

    def run_on(self, node, *command, check=True):
        return self.command("exec", node, *command, check=check)


def until(what, look, seconds=120, every=0.2):
    """Wait until look() is true, and give that; fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError("after %d s still not: %s" % (seconds, what))
        time.sleep(every)


sys.path.insert(0, os.path.join(PROJECT, "tests", "openstack"))
