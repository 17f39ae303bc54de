"""One guest: a QEMU process, and what can be done with it."""

import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from . import channel
from .channel import ChannelError
from .image import HOME, Image, building

RUNNING = os.path.join(HOME, "running")
INSIDE = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "inside")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

# where the machine outside is reached from the guest, see forward_out
HOST = "10.0.2.100"
PATH = "/share/inside:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KERNEL = ("console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off cryptomgr.notests audit=0 apparmor=0 "
          "rcupdate.rcu_expedited=1 random.trust_cpu=on nmi_watchdog=0 nvme_core.multipath=Y")
# TCG by name: where /dev/kvm opens without a processor's help, "kvm, else tcg" would take it and crawl.
# A saved state fits only a machine with the same devices, so all guests have the same.
MACHINE = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-M", "q35", "-smp", "2", "-m", "2048",
           "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-append", KERNEL,
           "-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
           "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
           "-device", "virtio-net-pci,netdev=outside,romfile=,mac=52:54:00:00:00:01",
           "-device", "virtio-net-pci,netdev=link,romfile=,mac=52:54:00:00:77:01")
BOOT_SECONDS = 240


class GuestError(Exception):
    """What a guest could not do, and why."""


class Guest:
    """A guest by its name, whether it runs or not.

    As a context manager it starts and, whatever happens, stops; QEMU ends with this process then.
    """

    def __init__(self, name, to_host=(), link=None, address="127.0.0.1"):
        """to_host: ports of 127.0.0.1 out here that are 127.0.0.1 inside too, as PORT or INSIDE:OUTSIDE;
        link: the name of the guest to which this one is joined by a network of the two of them;
        address: as whom servers out here see this guest, another 127.x.y.z than others have."""
        if not NAME.fullmatch(name):
            raise GuestError("no name for a guest: %r (small letters, digits, '-')" % name)
        self.name, self.link, self.address = name, link, address
        self.to_host = [port_pair(p) for p in to_host]
        self.folder = os.path.join(RUNNING, name)
        self.share = self.path("share")

    def path(self, name):
        return os.path.join(self.folder, name)

    def __enter__(self):
        self.start(attached=True)
        return self

    def __exit__(self, *_):
        self.stop()

    # ---- the process ----

    def pid(self):
        """Its process, if that is alive and really this guest."""
        try:
            with open(self.path("pid")) as f:
                pid = int(f.read())
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                return pid if self.path("monitor.sock").encode() in f.read() else None
        except (OSError, ValueError):
            return None

    def processor_seconds(self):
        """How much of the machine it has used: that says more than the clock where others work as well."""
        with open("/proc/%d/stat" % self.pid()) as f:
            user, system = f.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def start(self, attached=False):
        """Start and wait until it answers; attached: it ends when this process does."""
        if self.pid():
            raise GuestError("guest %s runs already" % self.name)
        image = Image()
        with building():
            image.ensure()
            state = image.state(MACHINE)
            if not os.path.exists(state):
                make_state(image, state)
        self.run(image, state, attached)

    def run(self, image, state, attached):
        started = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.share)
        shutil.copytree(INSIDE, os.path.join(self.share, "inside"))
        command = self.command(image) + (["-incoming", "exec:zstd -dcq " + state] if state else [])
        if attached:        # also when this process is killed and can tidy up nothing
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        try:
            with open(self.path("qemu.log"), "wb") as log:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                start_new_session=True)
            with open(self.path("pid"), "w") as f:
                f.write(str(self.process.pid))
            self.wait_until_ready(state)
            if state:
                self.settle()
        except BaseException:
            self.stop()
            raise
        self.seconds = time.monotonic() - started

    def command(self, image):
        outside = "user,id=outside,restrict=on,net=10.0.2.0/24"
        for port, host_port in self.to_host:
            # restrict=on: nothing but this leaves the guest
            # a connection that one side has closed goes on for a while in the other direction
            relay = "socat -t 5 -,shut-down TCP:127.0.0.1:%d,nodelay,bind=%s" % (host_port, self.address)
            outside += ",guestfwd=tcp:%s:%d-cmd:%s" % (HOST, port, relay.replace(",", ",,"))
        if self.link:
            link = "stream,id=link,server=off,addr.type=unix,addr.path=%s" % Guest(self.link).path("link.sock")
        else:
            link = "stream,id=link,server=on,addr.type=unix,addr.path=%s" % self.path("link.sock")
        return ["qemu-system-x86_64", "-name", self.name, *MACHINE, "-kernel", image.kernel, "-initrd", image.initrd,
                "-drive", "id=root,if=none,file=%s,format=raw,readonly=on" % image.root,
                "-virtfs", "local,path=%s,mount_tag=share,security_model=none,id=share,multidevs=remap" % self.share,
                "-serial", "file:" + self.path("console.log"),
                "-qmp", "unix:%s,server=on,wait=off" % self.path("monitor.sock"),
                "-chardev", "socket,id=agent,path=%s,server=on,wait=off" % self.path("agent.sock"),
                "-netdev", outside, "-netdev", link]

    def wait_until_ready(self, restored):
        """Until the agent answers; a restored machine was saved while it stood still, and has to go on."""
        deadline = time.monotonic() + BOOT_SECONDS
        going = not restored
        while True:
            if self.process.poll() is not None:
                with open(self.path("qemu.log"), errors="replace") as f:
                    raise GuestError("QEMU of guest %s ended: %s" % (self.name, f.read().strip()))
            try:
                if not going:
                    with self.monitor() as m:
                        going = m.call("query-status")["status"] != "inmigrate"
                        if going:
                            m.call("cont")
                else:
                    with channel.agent(self.path("agent.sock"), timeout=3):
                        return
            except (OSError, ChannelError):
                pass
            if time.monotonic() > deadline:
                raise GuestError("guest %s did not come up in %d s, see %s" % (
                    self.name, BOOT_SECONDS, self.path("console.log")))
            time.sleep(0.03)

    def settle(self):
        """Make a machine like all others this guest: clock, name, addresses, the share, the way out."""
        commands = ["date -s @%.2f >/dev/null" % time.time(),
                    "/usr/lib/guest/identity %s %d" % (self.name, 2 if self.link else 1)]
        ports = [str(port) for port, _ in self.to_host]
        if ports:
            commands.append("forward-out %s %s" % (HOST, " ".join(ports)))
        self.run_in("set -e; " + "; ".join(commands))

    def stop(self):
        pid = self.pid()
        if pid:
            # nothing in there is to be kept, so it need not be asked
            os.kill(pid, signal.SIGKILL)
            while self.pid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path("pid"))
        return bool(pid)

    def monitor(self):
        return channel.monitor(self.path("monitor.sock"))

    # ---- commands ----

    def execute(self, argv, stdin=b"", timeout=600):
        """Run a program inside; returns its exit code, standard output and standard error.

        A program left in the background must not hold these outputs open: the call would wait for it."""
        if not self.pid():
            raise GuestError("guest %s does not run" % self.name)
        deadline = time.monotonic() + timeout
        pause = 0.02
        with channel.agent(self.path("agent.sock")) as a:
            pid = a.call("guest-exec", path=argv[0], arg=list(argv[1:]), **{
                "env": ["PATH=" + PATH, "HOME=/root", "LC_ALL=C"], "capture-output": True,
                "input-data": base64.b64encode(stdin).decode()})["pid"]
        while True:
            with channel.agent(self.path("agent.sock")) as a:
                status = a.call("guest-exec-status", pid=pid)
            if status["exited"]:
                break
            if time.monotonic() > deadline:
                raise GuestError("guest %s: %s still runs after %d s" % (self.name, " ".join(argv), timeout))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)
        code = status.get("exitcode", 128 + status.get("signal", 0))
        return code, base64.b64decode(status.get("out-data", "")), base64.b64decode(status.get("err-data", ""))

    def run_in(self, script, timeout=600):
        """Run a bash script inside; returns what it wrote, or raises with what went wrong."""
        code, out, err = self.execute(["/bin/bash", "-c", script], timeout=timeout)
        if code:
            raise GuestError("guest %s: %s\nended with %d\n%s%s" % (
                self.name, script, code, out.decode(errors="replace"), err.decode(errors="replace")))
        return out.decode(errors="replace").strip()

    def push(self, source, target):
        """Copy a file into the guest, by the share: faster than through the agent."""
        parcel = os.path.join(self.share, ".parcel")
        shutil.copy(source, parcel)
        try:
            self.run_in("mkdir -p $(dirname '%s') && cp --preserve=mode /share/.parcel '%s'" % (target, target))
        finally:
            os.unlink(parcel)

    # ---- ways in ----

    def forward_in(self, port, host_port=None):
        """Make a port of the guest's 127.0.0.1... reachable as 127.0.0.1:host_port out here; returns host_port."""
        host_port = host_port or free_port()
        with self.monitor() as m:
            answer = m.call("human-monitor-command",
                            **{"command-line": "hostfwd_add outside tcp:127.0.0.1:%d-:%d" % (host_port, port)})
        if answer.strip():
            raise GuestError("guest %s, port %d: %s" % (self.name, host_port, answer.strip()))
        return host_port

    def serve_socket(self, path, host_port=None):
        """Make a UNIX socket of the guest (there now or later) a port of 127.0.0.1 out here; returns the port."""
        port = int(self.run_in("serve-socket '%s'" % path))
        return self.forward_in(port, host_port)


def make_state(image, path):
    """Boot once, load what tests use, save: later guests go on from there."""
    print("guest: booting once, to save the state (about 20 s)", flush=True)
    guest = Guest("base-%d" % os.getpid())
    guest.run(image, None, attached=True)
    try:
        guest.run_in("/usr/lib/guest/warm-up")
        partial = path + ".partial"
        with guest.monitor() as m:
            m.call("stop")
            m.call("migrate-set-parameters", **{"max-bandwidth": 1 << 34})
            m.call("migrate", uri="exec:zstd -q -1 -T2 -f -o %s" % partial)
            while True:
                status = m.call("query-migrate").get("status")
                if status == "completed":
                    break
                if status == "failed":
                    raise GuestError("the state could not be saved")
                time.sleep(0.1)
        os.rename(partial, path)
    finally:
        guest.stop()
        shutil.rmtree(guest.folder, ignore_errors=True)


def running():
    """All guests that run."""
    names = sorted(os.listdir(RUNNING)) if os.path.isdir(RUNNING) else []
    return [guest for guest in map(Guest, filter(NAME.fullmatch, names)) if guest.pid()]


def port_pair(text):
    inside, _, outside = str(text).partition(":")
    try:
        return int(inside), int(outside or inside)
    except ValueError:
        raise GuestError("no port: %r" % text) from None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
