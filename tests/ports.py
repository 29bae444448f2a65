"""Ports for programs that need to be given one."""

from __future__ import annotations

import secrets
import socket

# Below net.ipv4.ip_local_port_range: the kernel gives none of them to a client or to a bind to port 0.
PORTS = range(20_000, 32_000)


def free_port(family: int = socket.AF_INET, host: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> int:
    """Return a port of *host*, for TCP unless *kind* says otherwise, that is free and likely to remain so."""
    while True:
        port = secrets.choice(
            PORTS
        )  # each test starts with the same seed, so random would give all workers the same
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
