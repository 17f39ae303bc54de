"""What guests use that runs outside of them: a Ceph, an iSCSI target. Both start with a context manager, and end with it."""

import os
import subprocess

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


class Ceph:
    """A new cluster of tests/ceph.

    `told`: what it says of itself; `key`: of client.cinder; `ports`: those that a guest has to reach."""

    PROGRAM = os.path.join(TESTS, "ceph", "ceph-cluster")

    def __init__(self, home, port_offset):
        """home and port_offset: where nobody says otherwise in the environment."""
        self.settings = {"CEPH_CLUSTER_HOME": os.environ.get("CEPH_CLUSTER_HOME", home),
                         "CEPH_CLUSTER_PORT_OFFSET": os.environ.get("CEPH_CLUSTER_PORT_OFFSET", str(port_offset))}

    def __enter__(self):
        self.run(self.PROGRAM, "reset")
        try:
            self.told = exports(self.run(self.PROGRAM, "env"))
            self.key = self.run("ceph", "-c", self.told["CEPH_CONF"], "auth", "print-key", "client.cinder")
        except BaseException:
            self.__exit__()
            raise
        self.ports = [word for word in self.told["CEPH_GUEST_OPTIONS"].split() if word != "--to-host"]
        return self

    def __exit__(self, *_):
        self.run(self.PROGRAM, "stop")

    def run(self, *command):
        return run(command, self.settings)


class IscsiTarget:
    """A target of tests/iscsi without volumes; `told`: what it says of itself."""

    PROGRAM = os.path.join(TESTS, "iscsi", "iscsi-target")

    def __init__(self, home, port):
        self.settings = {"ISCSI_TARGET_HOME": os.environ.get("ISCSI_TARGET_HOME", home),
                         "ISCSI_TARGET_PORT": os.environ.get("ISCSI_TARGET_PORT", str(port))}

    def __enter__(self):
        run((self.PROGRAM, "stop"), self.settings)
        run((self.PROGRAM, "start"), self.settings)
        self.told = exports(run((self.PROGRAM, "env"), self.settings))
        self.ports = [self.told["ISCSI_TARGET_PORT"]]
        return self

    def __exit__(self, *_):
        run((self.PROGRAM, "stop"), self.settings)


def run(command, settings):
    return subprocess.run(command, env=dict(os.environ, **settings), check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def exports(text):
    """The variables of `export NAME=VALUE` lines."""
    pairs = (line.removeprefix("export ").split("=", 1) for line in text.splitlines())
    return {name: value.strip('"') for name, value in pairs}
