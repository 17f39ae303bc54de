"""The project's programs that run in guests, as cargo builds them."""

import json
import os
import shutil
import subprocess

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))


def build():
    """{name: path}: the test program `initiators` and the driver `fuxi-csi`; cargo says where they are."""
    done = subprocess.run(["cargo", "test", "--locked", "--test", "initiators", "--no-run", "--message-format=json"],
                          cwd=PROJECT, check=True, text=True, stdout=subprocess.PIPE)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    built = {message["target"]["name"]: message["executable"] for message in messages
             if message.get("reason") == "compiler-artifact" and message.get("executable")}
    if missing := {"initiators", "fuxi-csi"} - built.keys():
        raise SystemExit("cargo built no %s" % ", ".join(missing))
    return built


def tests_of(program):
    """The names of its tests that need a guest."""
    listed = subprocess.run([program, "--list", "--ignored", "--format=terse"], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    return [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]


def share(program, guest, name):
    """Into the guest's folder, without what is for debuggers: the guest reads slowly. Returns where it is in there."""
    place = os.path.join(guest.share, name)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-debug", "-o", place, program], check=True)
    else:
        shutil.copy(program, place)
    return "/share/" + name
