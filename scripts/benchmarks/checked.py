"""A program that simulates servers that are checked: python -m scripts.benchmarks.checked FIRST COUNT SILENT.

It listens at COUNT ports from FIRST on and answers each HTTP request, except at the last SILENT ports, where it reads
the request and does not answer.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: bench\r\n\r\nready"
BACKLOG = 1024


def main(first: int, count: int, silent: int) -> None:
    """Serve until this is killed."""
    chosen = selectors.DefaultSelector()
    is_silent: dict[socket.socket, bool] = {}
    listening: set[socket.socket] = set()
    for number in range(count):
        server = socket.create_server(("", first + number), backlog=BACKLOG)
        server.setblocking(False)
        is_silent[server] = number >= count - silent
        listening.add(server)
        chosen.register(server, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in chosen.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            with contextlib.suppress(OSError):
                if ready in listening:
                    accepted, _ = ready.accept()
                    accepted.setblocking(False)
                    is_silent[accepted] = is_silent[ready]
                    chosen.register(accepted, selectors.EVENT_READ)
                    continue
                if ready.recv(4096):
                    if not is_silent[ready]:
                        ready.send(ANSWER)
                    continue
            if ready not in listening:
                chosen.unregister(ready)
                del is_silent[ready]
                ready.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
