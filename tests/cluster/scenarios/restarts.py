"""The driver, a kubelet or a node ends in the middle of something."""

import time

from harness import deployment, objects
from harness.cluster import until
from harness.deployment import CONTROLLER, NODE
from harness.scenario import scenario


def crowd(case, count, **options):
    for number in range(count):
        case.claim("c%d" % number)
        case.pod("p%d" % number, "c%d" % number, wait=False, command="date >/v/file; sync; " + objects.IDLE, **options)


def all_run(case, count, seconds=240):
    for number in range(count):
        case.running("p%d" % number, seconds)


@scenario("the node plugin ends while pods use volumes: they go on, and are taken away properly")
def node_plugin_while_used(case):
    case.claim("data")
    case.pod("user", "data", node="node1")
    case.sh("user", "echo before >/v/file")
    deployment.restart(case.cluster, NODE)
    case.sh("user", "echo during >>/v/file; sync")
    deployment.wait_ready(case.cluster)
    assert case.sh("user", "cat /v/file") == "before\nduring"
    case.delete("Pod", "user")
    case.pod("again", "data", node="node2")
    assert case.sh("again", "cat /v/file") == "before\nduring"


@scenario("the node plugin ends again and again while ten volumes are staged")
def node_plugin_while_staging(case):
    crowd(case, 10)
    for _ in range(4):
        time.sleep(1.5)
        deployment.restart(case.cluster, NODE)
        deployment.wait_ready(case.cluster)
    all_run(case, 10)


@scenario("the controller ends again and again while twenty volumes are made")
def controller_while_making(case):
    crowd(case, 20)
    for _ in range(4):
        time.sleep(1.5)
        deployment.restart(case.cluster, CONTROLLER)
        deployment.wait_ready(case.cluster)
    all_run(case, 20)
    assert len(case.cloud.list("volumes")) == 20, "volumes without a claim"


@scenario("the kubelet is restarted: pods go on, volumes come and go as before")
def kubelet(case):
    case.claim("data")
    case.pod("user", "data", node="node1")
    case.sh("user", "echo kept >/v/file; sync")
    # in the node's own process namespace
    case.cluster.run_on("node1", "pkill", "-x", "kubelet")
    time.sleep(3)
    until("the node is ready", lambda: any(c["type"] == "Ready" and c["status"] == "True" for c in
                                           case.cluster.get("Node", "node1")["status"]["conditions"]))
    assert case.sh("user", "cat /v/file") == "kept"
    case.claim("more")
    case.pod("other", "more", node="node1")
    case.delete("Pod", "user")
    case.pod("again", "data", node="node2")
    assert case.sh("again", "cat /v/file") == "kept"


@scenario("a node is drained: its volumes move")
def drain(case):
    case.apply(objects.stateful_set("db", case.name, 3, nodeSelector={}, affinity={"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}]}}]}}))
    names = ["db-%d" % number for number in range(3)]
    for name in names:
        case.running(name)
        case.sh(name, "echo %s >/v/file; sync" % name)
    assert any(case.node_of(name) == "node2" for name in names)
    start = time.monotonic()
    try:
        case.cluster.kubectl("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s",
                             "--pod-selector=app=db")
        for name in names:
            case.running(name)
            assert case.node_of(name) == "node1"
            assert case.sh(name, "cat /v/file") == name
        case.seconds("moved", start)
    finally:
        case.cluster.kubectl("uncordon", "node2")


@scenario("a namespace is deleted with everything in it")
def namespace(case):
    case.claim("data")
    case.pod("user", "data")
    case.claim("raw", mode="Block")
    case.pod("raw", "raw", block=True)
    case.apply(objects.stateful_set("db", case.name, 2))
    case.running("db-1")
    case.snapshot("then", of="data")
    case.claim("again", source=("VolumeSnapshot", "then"))
    case.pod("reader", "again")
    start = time.monotonic()
    case.end()
    case.seconds("gone", start)


def ready_state(case, node):
    return next(c["status"] for c in case.cluster.get("Node", node)["status"]["conditions"] if c["type"] == "Ready")


@scenario("a node dies: without a word its volumes wait, tainted out-of-service they move, and it comes back clean")
def dead_node(case):
    case.apply(objects.stateful_set("db", case.name, 1, affinity={"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}]}}]}}))
    case.running("db-0")
    assert case.node_of("db-0") == "node2"
    case.sh("db-0", "echo kept >/v/file; sync")
    volume, server = case.volume_of("v-db-0"), case.cluster.server("node2")
    case.cluster.command("kill-node", "node2")
    try:
        until("the node is Unknown", lambda: ready_state(case, "node2") == "Unknown", 90)
        time.sleep(5)
        assert case.cloud.attached_to(server) == [volume], "it was taken from a node that may still write"
        case.cluster.kubectl("taint", "node", "node2", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
        start = time.monotonic()
        until("the pod runs on node1", lambda: case.node_of_or_none("db-0") == "node1" and case.is_running("db-0"), every=0.1)
        case.seconds("runs again after the taint", start)
        assert case.sh("db-0", "cat /v/file") == "kept"
        assert len(case.cloud.volume(volume)["attachments"]) == 1
        assert case.cloud.attached_to(server) == []
    finally:
        case.cluster.command("add-node", "node2")
        case.cluster.kubectl("taint", "node", "node2", "node.kubernetes.io/out-of-service-", check=False)
        deployment.wait_ready(case.cluster, 180)
    case.claim("new")
    case.pod("new", "new", node="node2")
