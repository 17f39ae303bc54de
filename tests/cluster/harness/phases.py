"""Where a pod's time goes: what the API server and the kubelets tell of each step, and when."""

import json
import os
import re
import statistics
import threading
import time
import urllib.error
import urllib.request

from .cluster import until

STAGED = re.compile(r'^[IWE]\d{4} (\d\d):(\d\d):(\d\d\.\d+) '
                    r'.*MountVolume\.MountDevice succeeded for volume \\?"(pvc-[0-9a-f-]+)')
KINDS = "Pod", "PersistentVolumeClaim", "PersistentVolume", "VolumeAttachment", "Node"


class Watch:
    """Every change of some kinds, with the time of day at which it was seen, until the end of the program."""

    def __init__(self, cluster):
        self.cluster, self.changes = cluster, []
        for kind in KINDS:
            threading.Thread(target=self.follow, args=(kind,), daemon=True).start()

    def follow(self, kind):
        while True:
            listed = self.cluster.call("GET", self.cluster.path(kind))
            request = urllib.request.Request(
                "%s/%s?watch=1&resourceVersion=%s" % (
                    self.cluster.url, self.cluster.path(kind), listed["metadata"]["resourceVersion"]),
                headers={"Authorization": "Bearer " + self.cluster.token})
            try:
                with urllib.request.urlopen(request, context=self.cluster.tls) as lines:
                    for line in lines:
                        change = json.loads(line)
                        self.changes.append((time.time(), kind, change["type"], change["object"]))
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)     # the API server ends a watch now and then

    def first(self, since, kind, true_of):
        """When the first change after a time was seen that something is true of: true_of(type, object). Or None."""
        return next((at for at, what, change, thing in self.changes
                     if at >= since and what == kind and true_of(change, thing)), None)


def condition(pod, name):
    return any(c["type"] == name and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def staged(cluster, node, volume, since):
    """When the kubelet's log says that the driver has staged the volume, or None."""
    midnight = time.mktime((*time.localtime(since)[:3], 0, 0, 0, 0, 0, -1))
    with open(os.path.join(cluster.state, "nodes", node, "log", "kubelet.log")) as log:
        for line in log:
            found = STAGED.match(line)
            if found and found[4] == volume:
                hour, minute, second = int(found[1]), int(found[2]), float(found[3])
                at = midnight + hour * 3600 + minute * 60 + second
                if at >= since:
                    return at
    return None


class Pod:
    """A pod that runs, with one volume: the steps of its way, {what: time of day}."""

    def __init__(self, watch, pod, since):
        self.watch, self.since = watch, since
        self.node, uid, namespace = pod["spec"]["nodeName"], pod["metadata"]["uid"], pod["metadata"]["namespace"]
        claim = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        volume = next(thing for _, kind, _, thing in reversed(watch.changes)
                      if kind == "PersistentVolume" and thing["spec"]["claimRef"]["name"] == claim
                      and thing["spec"]["claimRef"]["namespace"] == namespace)
        self.volume = volume["metadata"]["name"]
        self.unique = "kubernetes.io/csi/%s^%s" % (volume["spec"]["csi"]["driver"], volume["spec"]["csi"]["volumeHandle"])

        def this_pod(what):
            return lambda _, thing: thing["metadata"]["uid"] == uid and what(thing)

        def this_claim(what):
            return lambda _, thing: thing["metadata"]["namespace"] == namespace and thing["metadata"]["name"] == claim and (
                what(thing))
        look = {
            "claim: node chosen": ("PersistentVolumeClaim", this_claim(
                lambda c: c["metadata"].get("annotations", {}).get("volume.kubernetes.io/selected-node"))),
            "volume made": ("PersistentVolume", lambda _, v: v["metadata"]["name"] == self.volume),
            "claim bound": ("PersistentVolumeClaim", this_claim(lambda c: c["status"].get("phase") == "Bound")),
            "pod scheduled": ("Pod", this_pod(lambda pod: pod["spec"].get("nodeName"))),
            **self.attachment(),
            "container's sandbox": ("Pod", this_pod(lambda pod: condition(pod, "PodReadyToStartContainers"))),
            "pod runs": ("Pod", this_pod(lambda pod: condition(pod, "Ready"))),
        }
        until("the watch has seen the pod run", lambda: watch.first(since, *look["pod runs"]))
        self.steps = {what: watch.first(since, kind, true_of) for what, (kind, true_of) in look.items()}
        self.steps["staged (driver)"] = staged(watch.cluster, self.node, self.volume, since)

    def attachment(self):
        def here(thing):
            return thing["spec"]["source"].get("persistentVolumeName") == self.volume and thing["spec"]["nodeName"] == self.node
        return {
            "VolumeAttachment made": ("VolumeAttachment", lambda change, a: change == "ADDED" and here(a)),
            "attached (driver, attacher)": ("VolumeAttachment", lambda _, a: here(a) and a.get("status", {}).get("attached")),
            "node: volumesAttached": ("Node", lambda _, node: node["metadata"]["name"] == self.node and any(
                v["name"] == self.unique for v in node["status"].get("volumesAttached") or ())),
            "node: volumesInUse": ("Node", lambda _, node: node["metadata"]["name"] == self.node and (
                self.unique in (node["status"].get("volumesInUse") or ()))),
        }

    def left(self, old):
        """The steps of a volume's way off another node."""
        def there(thing):
            return thing["spec"]["source"].get("persistentVolumeName") == self.volume and thing["spec"]["nodeName"] == old
        look = {
            "old node: not in volumesInUse": ("Node", lambda _, node: node["metadata"]["name"] == old and (
                self.unique not in (node["status"].get("volumesInUse") or ()))),
            "old VolumeAttachment to go": ("VolumeAttachment", lambda _, a: there(a) and (
                a["metadata"].get("deletionTimestamp"))),
            "detached (driver, attacher)": ("VolumeAttachment", lambda change, a: change == "DELETED" and there(a)),
        }
        return {what: self.watch.first(self.since, kind, true_of) for what, (kind, true_of) in look.items()}


def table(rounds):
    """Lines: each step's median since the beginning, the range, and the time since the one before in that order."""
    names = [name for name in rounds[0] if all(steps.get(name) is not None for steps in rounds)]
    order = sorted(names, key=lambda name: statistics.median(steps[name] for steps in rounds))
    before = None
    for name in order:
        times = [steps[name] for steps in rounds]
        since = statistics.median(steps[name] - (steps[before] if before else 0) for steps in rounds)
        yield "  %6.2f  %6.2f to %5.2f  %+6.2f  %s" % (statistics.median(times), min(times), max(times), since, name)
        before = name
