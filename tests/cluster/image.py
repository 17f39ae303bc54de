#!/usr/bin/env python3
"""Writes a one-layer container image as a tar that `ctr images import` takes.

image.py OUT.tar REF [--entrypoint A,B] [--cmd A,B] [--env K=V] [--base ROOT.tar]
         [--user UID:GID] [--program NAME] [FILE[:PATH] | DIR:PATH | --link TARGET:PATH] ...

FILE goes to PATH (default /NAME) and becomes the entrypoint if neither that
nor a command is given. --program copies a program of this machine with the shared libraries
it needs. --base starts from a root file system's tar. Standard library only.
"""
import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile


def libraries(path):
    """Shared libraries of a dynamic program, and its loader, as real paths on this machine."""
    out = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", out)


class Layer:
    def __init__(self, out):
        self.tar = tarfile.open(out, "w", format=tarfile.PAX_FORMAT)
        self.seen = set()

    def entry(self, name, kind, mode, link=""):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname = kind, mode, link
        return info

    def folder(self, path, mode=0o755):
        path = path.strip("/")
        if not path or path in self.seen:
            return
        self.folder(os.path.dirname(path))
        self.seen.add(path)
        self.tar.addfile(self.entry(path, tarfile.DIRTYPE, mode))

    def link(self, target, path):
        path = path.strip("/")
        if path not in self.seen:
            self.folder(os.path.dirname(path))
            self.seen.add(path)
            self.tar.addfile(self.entry(path, tarfile.SYMTYPE, 0o777, target))

    def file(self, source, path):
        path = path.strip("/")
        if path in self.seen:
            return
        self.folder(os.path.dirname(path))
        self.seen.add(path)
        info = self.entry(path, tarfile.REGTYPE, os.stat(source).st_mode & 0o7777)
        info.size = os.path.getsize(source)
        with open(source, "rb") as f:
            self.tar.addfile(info, f)

    def program(self, source, path):
        self.file(os.path.realpath(source), path)
        for library in libraries(source):
            # Flat: the loader's own path matters, the others are searched for.
            place = library if "ld-linux" in library else "/lib/" + os.path.basename(library)
            self.file(os.path.realpath(library), place)

    def base(self, path):
        with tarfile.open(path) as base:
            for info in base:
                info.name = os.path.normpath(info.name).lstrip("/")
                if info.name in (".", "") or info.name in self.seen:
                    continue
                self.seen.add(info.name)
                self.tar.addfile(info, base.extractfile(info) if info.isreg() else None)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("ref")
    p.add_argument("files", nargs="*")
    p.add_argument("--entrypoint")
    p.add_argument("--cmd")
    p.add_argument("--env", action="append", default=[])
    p.add_argument("--user", default="")
    p.add_argument("--base")
    p.add_argument("--program", action="append", default=[])
    p.add_argument("--link", action="append", default=[])
    a = p.parse_intermixed_args()
    entrypoint = a.entrypoint.split(",") if a.entrypoint else None
    cmd = a.cmd.split(",") if a.cmd else None

    layer_path = a.out + ".layer"
    layer = Layer(layer_path)
    if a.base:
        layer.base(a.base)
    else:
        layer.folder("/tmp", 0o1777)
    for item in a.files:
        source, _, path = item.partition(":")
        if os.path.isdir(source):
            for root, _, names in os.walk(source):
                for name in sorted(names):
                    full = os.path.join(root, name)
                    layer.file(full, os.path.join(path, os.path.relpath(full, source)))
            continue
        path = path or "/" + os.path.basename(source)
        layer.program(source, path)
        entrypoint = entrypoint or (None if cmd else [path])
    for name in a.program:
        source = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if not source:
            raise SystemExit(f"no program {name} here")
        layer.program(source, "/bin/" + name)
    for item in a.link:
        target, _, path = item.partition(":")
        layer.link(target, path)
    layer.tar.close()

    with open(layer_path, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    config = json.dumps({
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Cmd": cmd, "User": a.user, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] + a.env},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [a.ref], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(a.out, "w") as image:
        image.add(layer_path, "layer.tar")
        for name, data in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            image.addfile(info, io.BytesIO(data))
    os.unlink(layer_path)


main()
