"""A driver's process."""

import os
import socket
import subprocess
import time

from .terminal import fail, say, tail

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
CLOUD_CONF = """[Global]
auth-url={auth_url}
application-credential-id={app_cred_id}
application-credential-secret={app_cred_secret}
region={region}

[Metadata]
search-order=metadataService
"""
# would change what the driver does
ITS_VARIABLES = ("OS_", "CLOUD_", "FUXI_CSI", "CSI_ENDPOINT", "CLUSTER_NAME")
START_SECONDS = 30
# a little more than the driver gives its calls to end
STOP_SECONDS = 35


def find_driver():
    """This project's program: $FUXI_CSI, or the release build, or the debug build."""
    found = [os.environ.get("FUXI_CSI")] + [
        os.path.join(PROJECT, "target", kind, "fuxi-csi") for kind in ("release", "debug")]
    for path in found:
        if path and os.path.exists(path):
            return os.path.abspath(path)
    fail("no driver: build it (cargo build --release) or set FUXI_CSI")


def environment(cloud=None):
    """Ours without what would configure a driver."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(ITS_VARIABLES)}
    if cloud:
        # for mount-share, which stands for the kernel's clients of shares
        env["CLOUD_STATE"] = cloud.info["state"]
    return dict(env, no_proxy="127.0.0.1,localhost,169.254.169.254")


class Driver:
    """A driver's process: started when its socket answers, ended by SIGTERM.

    `exit_code`: None while it runs.
    """

    def __init__(self, name, command, sock, log_path, env, enter=()):
        """enter: the words that run a command where it is to run."""
        self.name, self.command, self.sock, self.log_path = name, command, sock, log_path
        self.env, self.enter = env, enter

    def __enter__(self):
        with open(self.log_path, "w") as log:
            # a session of its own: Ctrl-C does not end it while it is used
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.enter, *self.command], env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not self.answers():
                if self.exit_code is not None:
                    fail("%s ended with code %d while it started: %s\nits log, %s:\n%s" % (
                        self.name, self.exit_code, " ".join(self.command), self.log_path, tail(self.log_path)))
                if time.monotonic() > deadline:
                    fail("%s does not serve %s after %d s; its log, %s:\n%s" % (
                        self.name, self.sock, START_SECONDS, self.log_path, tail(self.log_path)))
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def answers(self):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.sock)
                return True
            except OSError:
                return False

    @property
    def exit_code(self):
        return self.process.poll()

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """Its exit code; may be repeated."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say("%s did not end within %d s of SIGTERM" % (self.name, STOP_SECONDS))
            self.process.kill()
            self.process.wait()
        return self.process.returncode

    def last_words(self, lines=15):
        return "the last lines of %s:\n%s" % (self.log_path, tail(self.log_path, lines))
