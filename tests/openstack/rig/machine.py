"""What this machine has and can."""

import os
import shutil

from .terminal import fail

CAP_SYS_RESOURCE = 24


def check_machine(*tools):
    """End here where we are not root, or a command is missing."""
    if os.geteuid():
        fail("needs root: it makes namespaces, mounts and loop devices")
    for tool in ("ip", "nsenter", "setpriv", "unshare", "losetup", *tools):
        if not shutil.which(tool):
            fail("needs the command " + tool)


def grows_mounted_ext4():
    """Whether this machine's kernel lets us; it asks for CAP_SYS_RESOURCE, which some containers' root lacks."""
    with open("/proc/self/status") as f:
        status = dict(line.split(":", 1) for line in f)
    return bool(int(status["CapEff"], 16) >> CAP_SYS_RESOURCE & 1)
