#!/usr/bin/env python3
"""relay.py PID WHAT...: services of this machine in the network of process PID,
until PID ends. Standard library only. WHAT is

  PORT         there PORT leads to 127.0.0.1:PORT out here
  ADDRESS:PORT out here ADDRESS:PORT leads to 127.0.0.1:PORT
  PORT/SERVER  there 169.254.169.254:80 is the metadata service of that server;
               out here it is http://127.0.0.1:PORT/SERVER
"""
import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


def listeners(pid, addresses):
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as here, open(f"/proc/{pid}/ns/net") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            # A socket stays in the network that it was made in.
            return [socket.create_server(address, backlog=128) for address in addresses]
        finally:
            libc.setns(here.fileno(), CLONE_NEWNET)


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def with_server(reader, writer, server):
    """Passes one request on, with the server's name in front of its path."""
    head = await reader.readuntil(b"\r\n\r\n")
    request, *fields = head[:-4].split(b"\r\n")
    method, path, version = request.split(b" ")
    fields = [f for f in fields if not f.lower().startswith(b"connection:")]
    request = b" ".join((method, b"/" + server.encode() + path, version))
    writer.write(b"\r\n".join([request, *fields, b"Connection: close", b"", b""]))
    await writer.drain()


async def main():
    pid = sys.argv[1]
    services, here = [], []
    for what in sys.argv[2:]:
        if ":" in what:
            address, _, port = what.rpartition(":")
            here.append((address, int(port)))
            continue
        port, _, server = what.partition("/")
        address = ("169.254.169.254", 80) if server else ("0.0.0.0", int(port))
        services.append((address, int(port), server))

    def handler(port, server):
        async def handle(reader, writer):
            try:
                out_reader, out_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            try:
                if server:
                    await with_server(reader, out_writer, server)
                await asyncio.gather(pump(reader, out_writer), pump(out_reader, writer))
            except (OSError, ValueError, asyncio.IncompleteReadError):
                pass
            out_writer.close()
            writer.close()
        return handle

    sockets = listeners(pid, [address for address, _, _ in services])
    servers = [await asyncio.start_server(handler(port, server), sock=s)
               for s, (_, port, server) in zip(sockets, services)]
    servers += [await asyncio.start_server(handler(port, ""), address, port) for address, port in here]
    print("ready", os.getpid(), flush=True)
    while servers and os.path.exists(f"/proc/{pid}"):
        await asyncio.sleep(0.5)
    os._exit(0)


asyncio.run(main())
