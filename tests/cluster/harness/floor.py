"""A driver that does nothing, beside the others: what it takes with it is Kubernetes' own time."""

import os
import subprocess
import tempfile

from . import deployment
from .cluster import HERE, until

NAME = "csi-floor"
INSTANCE = "cinder-floor"
FOLDER = os.path.join(HERE, "floor")
IMAGE = "localhost/floor-csi:1"


def manifests(cluster):
    text = cluster.kubectl("kustomize", FOLDER)
    return text.replace("VOLUMES", os.path.join(cluster.state, "floor"))


def install(cluster):
    """Its pods, and wait until the kubelets know it. The folder of its volumes is the same one on all nodes."""
    program = os.path.join(cluster.state, "floor-csi")
    subprocess.run(["go", "build", "-trimpath", "-o", program, "."], cwd=FOLDER, check=True,
                   env=dict(os.environ, CGO_ENABLED="0", GOFLAGS="-buildvcs=false"))
    cluster.command("load-image", IMAGE, program)
    rendered = manifests(cluster)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(rendered)
        file.flush()
        cluster.command("load-sidecars", file.name)
    cluster.kubectl("apply", "-f", "-", data=rendered)
    deployment.wait_ready(cluster, instance=INSTANCE)


def remove(cluster):
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", data=manifests(cluster))
    until("the pods of the floor are gone",
          lambda: not any(deployment.pods(cluster, name) for name in deployment.names(INSTANCE)), 90)
