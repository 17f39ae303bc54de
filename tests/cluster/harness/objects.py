"""Kubernetes objects as short functions."""

DRIVER = "cinder.fuxi.openstack.org"
SHARE_DRIVER = "manila.fuxi.openstack.org"
CLASS = "fuxi-cinder"
BUSYBOX = "localhost/busybox:1"
# ends at once when it is told to
IDLE = "trap exit TERM; while :; do sleep 0.2; done"


def meta(name, namespace=None, **more):
    return {"name": name, **({"namespace": namespace} if namespace else {}), **more}


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta(name)}


def storage_class(name, provisioner=DRIVER, binding="WaitForFirstConsumer", reclaim="Delete", mount_options=(), **parameters):
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": meta(name), "provisioner": provisioner,
            "volumeBindingMode": binding, "allowVolumeExpansion": True, "reclaimPolicy": reclaim,
            "mountOptions": list(mount_options),
            "parameters": parameters}


def snapshot_class(name, driver=DRIVER, **parameters):
    return {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": meta(name),
            "driver": driver, "deletionPolicy": "Delete", "parameters": parameters}


def claim(name, namespace, size="1Gi", storage_class=CLASS, mode="Filesystem", access="ReadWriteOnce", source=None, **more):
    """source: (kind, name) of a VolumeSnapshot or a PersistentVolumeClaim."""
    spec = {"storageClassName": storage_class, "accessModes": [access], "volumeMode": mode,
            "resources": {"requests": {"storage": size}}, **more}
    if source:
        group = {"apiGroup": "snapshot.storage.k8s.io"} if source[0] == "VolumeSnapshot" else {}
        spec["dataSource"] = {"kind": source[0], "name": source[1], **group}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(name, namespace), "spec": spec}


def snapshot(name, namespace, of, snapshot_class="fuxi-cinder-snapshot"):
    return {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": meta(name, namespace),
            "spec": {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": of}}}


def container(block=False, command=IDLE, read_only=False):
    use = {"volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]} if block else {
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": read_only}]}
    return {"name": "c", "image": BUSYBOX, "command": ["sh", "-c", command], **use}


def pod(name, namespace, claim=None, node=None, block=False, command=IDLE, volume=None, read_only=False, **more):
    """volume: what takes the place of the claim's volume."""
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container(block, command, read_only)],
            "volumes": [{"name": "v", **(volume or {"persistentVolumeClaim": {"claimName": claim}})}], **more}
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name, namespace), "spec": spec}


def stateful_set(name, namespace, replicas, size="1Gi", storage_class=CLASS, **pod_spec):
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta(name, namespace), "spec": {
        "selector": {"matchLabels": {"app": name}}, "serviceName": name, "replicas": replicas,
        "podManagementPolicy": "Parallel",
        "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "terminationGracePeriodSeconds": 1, "containers": [container()], **pod_spec}},
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {
            "storageClassName": storage_class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}}]}}
