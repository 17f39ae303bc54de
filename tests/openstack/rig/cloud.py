"""A running cloud of ../cloud, and what is in it."""

import contextlib
import fcntl
import itertools
import json
import os
import subprocess
import time

from cloud_runtime.api import Api, ApiError
from .terminal import fail, run_shown, say

CLOUD = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "cloud")
# the clouds of tests, one folder each; safe to delete when stopped
POOL = "/var/tmp/fuxi-test-clouds"
# those with more back ends, whose seeds are others
POOL_OF_MORE = "/var/tmp/fuxi-test-clouds-more"


@contextlib.contextmanager
def home_of_our_own(pool):
    """A CLOUD_HOME for us alone: the first that nobody uses now, as its seed is made."""
    for number in itertools.count(1):
        home = os.path.join(pool, str(number))
        os.makedirs(home, exist_ok=True)
        with open(os.path.join(home, "in-use"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield home
            return


class Cloud:
    """A running cloud.

    `info`: its addresses and credentials; `api`: a session with its application credential.
    """

    def __init__(self, services, home=None, keep=False, show=say, back_ends=None, new=False):
        """home: the CLOUD_HOME of a cloud to use and leave running (default: one of our own, made new, stopped
        afterwards); new: make it new and stop it, although it has this home; keep: leave ours running as well;
        show: gets the lines that the cloud prints; back_ends: variables that give it more of them, as CLOUD_CEPH."""
        self.services, self.home, self.show = services, home, show
        self.own = home is None or new
        self.keep = keep or not self.own
        self.back_ends = back_ends or {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            if self.home is None:
                self.home = stack.enter_context(home_of_our_own(POOL_OF_MORE if self.back_ends else POOL))
            self.env = dict(os.environ, CLOUD_HOME=self.home, **self.back_ends)
            if self.own:
                self.env["CLOUD_PORT_OFFSET"] = "auto"
            if not self.keep:
                stack.callback(self.command, "stop", show=lambda _: None)
            if self.own:
                self.command("reset", show=lambda _: None)
            self.command("start", "keystone", *self.services)
            self.info = json.loads(subprocess.run([CLOUD, "info"], env=self.env, check=True, text=True,
                                                  stdout=subprocess.PIPE).stdout)
            self.api = Api(self.info["auth_url"], app_id=self.info["app_cred_id"],
                           app_secret=self.info["app_cred_secret"])
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *problem):
        return self.stack.__exit__(*problem)

    def command(self, *words, show=None):
        lines = []
        code = run_shown([CLOUD, *words], lambda line: (lines.append(line), (show or self.show)(line)), env=self.env)
        if code:
            fail("'cloud %s' ended with code %d:\n%s" % (" ".join(words), code, "\n".join(lines)))

    @contextlib.contextmanager
    def server(self, name):
        """A Nova server, by its id."""
        server = self.api.create_server(name)
        try:
            yield server
        finally:
            with contextlib.suppress(ApiError):
                self.api("DELETE", "compute", "/servers/" + server)
                self.api.wait("compute", "/servers/" + server, None)

    def stock(self, collections):
        """What there is: {(service, kind, id): status}."""
        return {(service, kind, o["id"]): o.get("status") for service, kind in collections
                for o in self.api("GET", service, "/%s/detail" % kind)[kind]}

    def more_than(self, before, collections, seconds=10):
        """What has come since that stock; deletion goes on after the driver's answer: let it end."""
        deadline = time.monotonic() + seconds
        while True:
            more = {key: status for key, status in self.stock(collections).items() if key not in before}
            if "deleting" not in more.values() or time.monotonic() > deadline:
                return more
            time.sleep(0.2)
