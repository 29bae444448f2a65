"""A web server that answers with its name.

    server.py NAME PORT FILE RATE

`/` and `/health` answer with the name; `/file` with FILE, at RATE bytes per second.
"""

from __future__ import annotations

import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNKS = 50  # of a file, per second


class Server(ThreadingHTTPServer):
    """Listens on every address, with a long queue."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, port: int, file: Path, rate: int) -> None:
        super().__init__(("", port), Handler)
        self.name, self.file, self.rate = name, file, rate

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that has gone, such as a check that timed out; print any other error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection; it stays open for more requests."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        if self.path == "/file":
            self._send_file()
        else:
            self._begin(len(self.server.name))
            self.wfile.write(self.server.name.encode())

    def _begin(self, size: int) -> None:
        self.send_response(200)
        self.send_header("X-Server", self.server.name)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def _send_file(self) -> None:
        self._begin(self.server.file.stat().st_size)
        with self.server.file.open("rb") as file:
            while chunk := file.read(self.server.rate // CHUNKS):
                self.wfile.write(chunk)
                time.sleep(1 / CHUNKS)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


if __name__ == "__main__":
    served = Server(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    print("ready", flush=True)
    served.serve_forever()
