"""The sockets through which QEMU and the agent in the guest are asked: one JSON object a line."""

import contextlib
import fcntl
import json
import random
import socket
import time


class ChannelError(Exception):
    """The other side refused, or is gone."""


class Channel:
    """One open connection."""

    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.unread = b""
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise

    def close(self):
        self.socket.close()

    def receive(self):
        while b"\n" not in self.unread:
            received = self.socket.recv(1 << 16)
            if not received:
                raise ChannelError("the connection was closed")
            self.unread += received
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line.lstrip(b"\xff"))

    def send(self, command, before=b"", **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.socket.sendall(before + json.dumps(message).encode() + b"\n")

    def call(self, command, **arguments):
        self.send(command, **arguments)
        while True:
            answer = self.receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise ChannelError("%s: %s" % (command, answer["error"].get("desc")))


@contextlib.contextmanager
def exclusive(path, timeout):
    """Each of the two sockets serves one client at a time; a second one would hang without a word."""
    with open(path, "w") as lock:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ChannelError("%s has been in use for %d s" % (path, timeout)) from None
                time.sleep(0.01)
        yield


@contextlib.contextmanager
def monitor(path, timeout=60):
    """QEMU's monitor."""
    with exclusive(path + ".lock", timeout):
        channel = Channel(path, timeout)
        try:
            channel.receive()       # its greeting
            channel.call("qmp_capabilities")
            yield channel
        finally:
            channel.close()


@contextlib.contextmanager
def agent(path, timeout=60):
    """The agent in the guest."""
    with exclusive(path + ".lock", timeout):
        channel = Channel(path, timeout)
        try:
            synchronise(channel)
            yield channel
        finally:
            channel.close()


def synchronise(channel):
    """Skip what an earlier client that died half-way has left."""
    number = random.getrandbits(31)
    channel.send("guest-sync-delimited", before=b"\xff", id=number)
    while True:
        try:
            if channel.receive().get("return") == number:
                return
        except json.JSONDecodeError:
            pass
