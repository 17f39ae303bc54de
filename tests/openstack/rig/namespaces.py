"""A process that keeps Linux namespaces open."""

import subprocess
import time

from .terminal import fail


class Namespaces:
    """Namespaces of our own; they end with us, whatever ends us, and their mounts with them.

    `enter`: the words that run a command in them.
    """

    def __init__(self, *options, within=()):
        """options: those of unshare(1); within: the words that enter those they are made from."""
        self.options, self.within = options, within

    def __enter__(self):
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self.within, "unshare", *self.options, "sleep", "infinity"],
            stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            # sleep is executed when the namespaces are there
            while not self.cmdline().startswith("sleep\0"):
                if self.holder.poll() is not None:
                    fail("cannot make namespaces")
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise
        kinds = [o for o in self.options if o in ("--net", "--mount")]
        self.enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--target", str(self.holder.pid), *kinds, "--"]
        return self

    def __exit__(self, *_):
        self.holder.kill()
        self.holder.wait()

    def path(self, name):
        return "/proc/%d/%s" % (self.holder.pid, name)

    def cmdline(self):
        with open(self.path("cmdline")) as f:
            return f.read()

    def run(self, *script):
        """Run lines of a shell script in them."""
        subprocess.run([*self.enter, "sh", "-ec", "\n".join(script)], check=True)

    def mounts_below(self, folder):
        with open(self.path("mounts")) as f:
            points = [line.split()[1] for line in f]
        return [point for point in points if point.startswith(folder + "/")]
