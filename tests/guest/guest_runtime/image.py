"""The image that guests start from, and the saved state of a machine that has booted it: made once, then kept."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

HOME = os.path.abspath(os.environ.get("GUEST_HOME", "/var/tmp/fuxi-guest"))
SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "image")


def fingerprint():
    """A hash of all that goes into the image and is ours: another one, another image."""
    digest = hashlib.sha256()
    with open("/etc/os-release", "rb") as f:
        digest.update(f.read())
    for folder, folders, files in os.walk(SOURCES):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            digest.update(os.path.relpath(path, SOURCES).encode() + b"\0")
            with open(path, "rb") as f:
                digest.update(f.read())
    return digest.hexdigest()[:12]


class Image:
    """The image of this source tree; `ensure` makes it where it is absent."""

    def __init__(self):
        self.folder = os.path.join(HOME, "image-" + fingerprint())
        self.kernel = os.path.join(self.folder, "vmlinux")
        self.initrd = os.path.join(self.folder, "initrd.img")
        self.root = os.path.join(self.folder, "rootfs.sqfs")

    def ensure(self):
        if os.path.exists(self.folder):
            return
        if os.geteuid() != 0:
            sys.exit("guest: root is needed to build the image (Debian packages, chroot)")
        print("guest: building the image in %s (about a minute, once)" % self.folder, flush=True)
        partial = self.folder + ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run([os.path.join(SOURCES, "build"), partial], stdin=subprocess.DEVNULL, check=True)
        os.rename(partial, self.folder)

    def state(self, machine):
        """The file with the saved state of such a machine: it fits no other."""
        version = subprocess.run(["qemu-system-x86_64", "--version"], check=True, text=True,
                                 stdout=subprocess.PIPE).stdout
        return os.path.join(self.folder, "state-%s.zst" % hashlib.sha256(
            repr((version, machine)).encode()).hexdigest()[:12])


@contextlib.contextmanager
def building():
    """One builder at a time: tests start in parallel."""
    os.makedirs(HOME, exist_ok=True)
    with open(os.path.join(HOME, "build.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
