#!/usr/bin/env python3
"""extract-vmlinux.py BZIMAGE OUT: the ELF kernel out of a bzImage that is packed with xz, zstd or gzip."""

import gzip
import io
import lzma
import struct
import subprocess
import sys

SETUP_SECTORS = 0x1F1       # offsets of the boot protocol's header
PAYLOAD = 0x248


def unpack(payload):
    # a decompressor that minds what follows would stumble over the length at the end
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    if payload.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=io.BytesIO(payload[:-4])).read()
    sys.exit("the kernel is packed in a way not known here: %r" % payload[:8])


def main():
    source, target = sys.argv[1:]
    with open(source, "rb") as f:
        image = f.read()
    setup = (image[SETUP_SECTORS] or 4) * 512 + 512
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    kernel = unpack(image[setup + offset:setup + offset + length])
    if not kernel.startswith(b"\x7fELF"):
        sys.exit("%s holds no ELF kernel" % source)
    with open(target, "wb") as f:
        f.write(kernel)


if __name__ == "__main__":
    main()
