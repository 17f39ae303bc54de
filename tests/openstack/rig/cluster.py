"""A controller and some nodes, each a process, as an orchestrator runs them."""

import contextlib
import os
import socket

from .driver import CLOUD_CONF, Driver, environment
from .namespaces import Namespaces
from .node import BareHost, NodeHost
from .terminal import indented, run_shown, say


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    """A controller and some nodes, each a process of the driver.

    The controller runs on this machine and reaches the cloud.  Each node process runs as a Nova server of its own
    (see NodeHost), without a way to the cloud.  All see the mounts below `work`, so that one program can play the
    orchestrator for all of them; nobody else does.

    `controller`, `nodes`: the processes; `hosts`: what the nodes run on.
    """

    def __init__(self, cloud, provider, binary, folder, nodes=2):
        """folder: for logs, sockets and records; new."""
        self.cloud, self.provider, self.binary, self.folder, self.size = cloud, provider, binary, folder, nodes
        self.work = os.path.join(folder, "work")
        self.cloud_conf = os.path.join(folder, "cloud.conf")
        self.metrics_url = "http://127.0.0.1:%d/metrics" % free_port()
        self.env = environment(cloud)

    def __enter__(self):
        os.makedirs(self.work)
        with open(self.cloud_conf, "w") as f:
            os.fchmod(f.fileno(), 0o600)
            f.write(CLOUD_CONF.format(**self.cloud.info))
        with contextlib.ExitStack() as stack:
            # where the orchestrator runs; the nodes' namespaces are made from it
            self.orchestrator = stack.enter_context(Namespaces("--mount", "--propagation", "slave"))
            self.orchestrator.run("mount --bind {0} {0}".format(self.work),
                                  "mount --make-private " + self.work, "mount --make-shared " + self.work)
            self.hosts = [stack.enter_context(self.host("node-%d" % number)) for number in range(1, self.size + 1)]
            self.controller = stack.enter_context(self.driver("controller", [
                "--cloud-config", self.cloud_conf, "--cluster", "demo",
                "--http-endpoint", self.metrics_url.split("/")[2], *self.attach]))
            self.nodes = [stack.enter_context(self.node(host, "127.0.0.%d" % number))
                          for number, host in enumerate(self.hosts, 1)]
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *problem):
        return self.stack.__exit__(*problem)

    def folder_of(self, name):
        folder = os.path.join(self.folder, name)
        os.makedirs(folder)
        return folder

    @property
    def attach(self):
        return ["--attach", "host"] if self.provider.attach == "host" else []

    def host(self, name):
        """What a node runs on."""
        if self.provider.attach == "host":
            return BareHost(name, self.folder_of(name), self.orchestrator)
        return NodeHost(self.cloud, name, self.folder_of(name), within=self.orchestrator, reaches_cloud=False,
                        mounts_shares=self.provider.mounts_shares)

    def identity(self, host):
        """How a node process gets to know what it is."""
        if self.provider.attach == "host":
            return [*self.attach, "--host-name", host.name, "--zone", "nova"]
        return ["--metadata-search-order", "metadata-service"]

    def node(self, host, address):
        """address: from where it mounts shares, which mount-share believes."""
        return self.driver(host.name, [
            *self.identity(host), "--plugin-dir", os.path.join(host.folder, "plugin"),
            *(option.format(address=address) for option in self.provider.node_options)],
            host.enter, CLOUD_CLIENT_IP=address)

    def driver(self, name, options, enter=(), **variables):
        role = "controller" if name == "controller" else "node"
        sock = os.path.join(self.folder, name + ".sock")
        command = [self.binary, role, "--provider", self.provider.name, "--endpoint", "unix://" + sock, *options]
        return Driver(name, command, sock, os.path.join(self.folder, name + ".log"),
                      dict(self.env, **variables), enter)

    @property
    def drivers(self):
        return [self.controller, *self.nodes]

    @property
    def dead(self):
        """What is wrong with the processes that should run."""
        return ["%s died with code %d" % (d.name, d.exit_code) for d in self.drivers if d.exit_code is not None]

    def show_logs(self):
        """Where to look after a failure: the last lines of each log."""
        for driver in self.drivers:
            say("   " + indented(driver.last_words(12), "   ").strip())

    def stop_drivers(self):
        """Stop the processes; gives what is wrong with how they ended."""
        return ["%s ended with code %d on SIGTERM" % (driver.name, code)
                for driver in self.drivers if driver.exit_code is None and (code := driver.stop())]

    def check(self, show):
        """`fuxi-csi check` with the controller's configuration; its exit code."""
        return run_shown([self.binary, "check", "--provider", self.provider.name, "--cloud-config", self.cloud_conf,
                          *self.attach], show, self.folder + "/check.log", self.env)

    def try_command(self, *options):
        """The words of `fuxi-csi try` against this cluster."""
        words = [self.binary, "try", "--endpoint", self.controller.sock]
        for node in self.nodes:
            words += ["--node-endpoint", node.sock]
        words += ["--metrics-url", self.metrics_url, "--work-dir", self.work]
        for pair in self.provider.parameters.items():
            words += ["--parameter", "%s=%s" % pair]
        return [*words, *options]

    def try_volumes(self, *options, show):
        """`fuxi-csi try` where it sees all nodes' mounts; its exit code."""
        return run_shown([*self.orchestrator.enter, *self.try_command(*options)], show,
                         self.folder + "/try.log", self.env)
