"""Tells systemd about the life of the agent (sd_notify(3)); does nothing if no service manager asks."""

from __future__ import annotations

import contextlib
import os
import socket
import time


def ready(status: str = "") -> None:
    """Report that the agent is ready, at the start and at the end of a reload."""
    _notify("READY=1", *_status(status))


def reloading() -> None:
    """Report that a reload began; ready() ends it."""
    _notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(status: str = "") -> None:
    """Report that a clean stop began."""
    _notify("STOPPING=1", *_status(status))


def status(text: str) -> None:
    """Report *text*, one line, for ``systemctl status``."""
    _notify(*_status(text))


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.splitlines())}"] if text else []


def _notify(*assignments: str) -> None:
    """Send one datagram.  Raises nothing: a service manager that cannot be reached is not the agent's failure."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not assignments:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
    ):
        manager.connect(address)
        manager.sendall("\n".join(assignments).encode())
