"""The ways out of a node's network namespace: the cloud's ports, and the metadata service."""

import asyncio
import concurrent.futures
import contextlib
import ctypes
import http.server
import socket
import threading
import urllib.error
import urllib.request


def listen_in(netns, address):
    """A listening socket in another network namespace.

    setns(2) moves one thread: this one ends after it.
    """
    def listen():
        libc = ctypes.CDLL(None, use_errno=True)
        with open(netns) as ns:
            if libc.setns(ns.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_server(address, backlog=128)

    with concurrent.futures.ThreadPoolExecutor(1) as one:
        return one.submit(listen).result()


class Relays:
    """Carry connections to sockets on to ports of this machine's 127.0.0.1."""

    def __init__(self, ways):
        """ways: (listening socket, port) each."""
        self.ways = ways

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.servers = [self.loop.run_until_complete(self.serve(sock, port)) for sock, port in self.ways]
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        for server in self.servers:
            server.close()
        # Python 3.11 prints a trace for each open connection otherwise
        self.loop.set_exception_handler(lambda *_: None)
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()

    @staticmethod
    async def serve(sock, port):
        async def pump(reader, writer):
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()

        async def connected(reader, writer):
            try:
                there, to_there = await asyncio.open_connection("127.0.0.1", port)
            except OSError:         # a service that does not run: refuse, as it would
                writer.close()
                return
            await asyncio.gather(pump(reader, to_there), pump(there, writer))
            to_there.close()
            writer.close()

        return await asyncio.start_server(connected, sock=sock)


class MetadataService:
    """The metadata service as a server sees it: it does not say who it is."""

    def __init__(self, sock, url):
        self.sock, self.url = sock, url

    def __enter__(self):
        url = self.url

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                try:
                    with urllib.request.urlopen(url + self.path, timeout=30) as r:
                        code, kind, body = r.status, r.headers.get_content_type(), r.read()
                except urllib.error.HTTPError as e:
                    code, kind, body = e.code, "text/plain", e.read()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        self.httpd.socket.close()
        self.httpd.socket = self.sock
        self.httpd.daemon_threads = True
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.httpd.shutdown()
        self.httpd.server_close()
