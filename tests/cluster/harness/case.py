"""One scenario's namespace, with words for what users do in it."""

import time

from . import objects
from .cluster import until
from .deployment import logs, names
from .truth import leftovers


class Case:
    """What a scenario gets: the cluster, the cloud, and a namespace that goes when it is over."""

    def __init__(self, cluster, cloud, name, driver):
        self.cluster, self.cloud, self.name, self.driver = cluster, cloud, name, driver
        self.extra = []         # objects outside of the namespace
        self.instance = "cinder"    # of the driver, whose logs are shown after a failure
        self.afterwards = []    # what to call when nothing is left, or nothing more will go
        self.figures = {}
        self.story = ""         # after a failure: what a user sees, and the logs

    def __enter__(self):
        # what an earlier one left is its failure, not ours
        self.before = set(self.leftovers())
        self.cluster.apply(objects.namespace(self.name))
        until("the namespace has its service account",
              lambda: self.cluster.get("ServiceAccount", "default", self.name), 30)
        return self

    def __exit__(self, problem, *_):
        try:
            if not problem:
                self.end()
                return
            self.story = self.told()
            try:
                self.end()
            except (AssertionError, TimeoutError) as error:
                self.story += "\nand then: %s" % error
        finally:
            for each in reversed(self.afterwards):
                each()

    def leftovers(self):
        return leftovers(self.cluster, self.cloud)

    def end(self, seconds=120):
        """Delete everything, and be sure that nothing stays."""
        self.cluster.delete("Namespace", self.name)
        for kind, name in self.extra:
            if kind not in ("StorageClass", "VolumeSnapshotClass"):
                self.cluster.delete(kind, name)
        left = []

        def clean():
            left[:] = [one for one in self.leftovers() if one not in self.before]
            return not left and not self.cluster.get("Namespace", self.name)
        try:
            until("everything is gone", clean, seconds, every=0.5)
        except TimeoutError as error:
            raise AssertionError("%s; still there:\n%s" % (error, "\n".join(left) or "the namespace")) from None
        for kind, name in self.extra:
            self.cluster.delete(kind, name)

    # --- make

    def apply(self, *things):
        for thing in things:
            if not thing["metadata"].get("namespace"):
                self.extra.append((thing["kind"], thing["metadata"]["name"]))
        self.cluster.apply(*things)

    def claim(self, name, **options):
        self.apply(objects.claim(name, self.name, **options))

    def pod(self, name, claim=None, wait=True, **options):
        self.apply(objects.pod(name, self.name, claim, **options))
        if wait:
            self.running(name)

    def snapshot(self, name, of, wait=True, **options):
        self.apply(objects.snapshot(name, self.name, of, **options))
        if wait:
            until("snapshot %s is ready" % name, lambda: (self.get("VolumeSnapshot", name).get("status") or {}).get("readyToUse"))

    # --- look

    def get(self, kind, name):
        return self.cluster.get(kind, name, self.name)

    def is_running(self, name):
        pod = self.get("Pod", name)
        return bool(pod) and not pod["metadata"].get("deletionTimestamp") and any(
            c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))

    def running(self, name, seconds=120):
        until("pod %s runs" % name, lambda: self.is_running(name), seconds, every=0.1)

    def node_of(self, name):
        return self.get("Pod", name)["spec"].get("nodeName")

    def node_of_or_none(self, name):
        pod = self.get("Pod", name)
        return pod and pod["spec"].get("nodeName")

    def sh(self, pod, script, check=True):
        return self.cluster.kubectl("-n", self.name, "exec", pod, "--", "sh", "-c", script, check=check).strip()

    def volume_of(self, claim):
        """The Cinder id of a bound claim's volume."""
        volume = self.get("PersistentVolumeClaim", claim)["spec"].get("volumeName")
        return self.cluster.get("PersistentVolume", volume)["spec"]["csi"]["volumeHandle"]

    def capacity(self, claim):
        return self.get("PersistentVolumeClaim", claim)["status"].get("capacity", {}).get("storage")

    def events(self, of=None):
        """Messages of the namespace's warnings, or of one object's."""
        return ["%s: %s" % (e["reason"], e["message"]) for e in self.cluster.list("Event", self.name)
                if e["type"] == "Warning" and e["reason"] != "MissingClusterDNS"
                and (of is None or e["involvedObject"]["name"] == of)]

    def told(self):
        """What a user sees, and the driver's logs: for a failure."""
        return "\n".join(["events:", *self.events(), *(logs(self.cluster, name) for name in names(self.instance))])

    # --- end

    def delete(self, kind, name, wait=True, seconds=60):
        self.cluster.delete(kind, name, self.name)
        if wait:
            until("%s %s is gone" % (kind, name), lambda: self.get(kind, name) is None, seconds, every=0.1)

    def seconds(self, what, start):
        self.figures[what] = time.monotonic() - start
