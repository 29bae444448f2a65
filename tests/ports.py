"""Ports for programs that need to be given one, and ports that refuse."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below net.ipv4.ip_local_port_range: the kernel gives none of them to a client or to a bind to port 0.
FIRST, LAST = 20_000, 32_000
WORKERS = 64

# No two workers of a run have a port in common: it would still be free for the one until the other's program starts.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_OURS = range(FIRST + _WORKER, LAST, WORKERS)
_PORTS = itertools.cycle(secrets.SystemRandom().sample(_OURS, len(_OURS)))


def free_port(family: int = socket.AF_INET, host: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> int:
    """Return a port of *host*, for TCP unless *kind* says otherwise, that is free and likely to remain so."""
    while True:
        port = next(_PORTS)
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


@contextlib.contextmanager
def refusing_port(kind: int = socket.SOCK_STREAM) -> Iterator[int]:
    """Yield a port of 127.0.0.1 that refuses connections, or datagrams, and that nobody else can have meanwhile."""
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_DGRAM:
            taken.connect(("127.0.0.1", 9))  # so it hears nobody else
        yield taken.getsockname()[1]
