"""Where dockerd looks for a driver, a unix socket with its name, and what else a driver needs from this host."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.host.sockets.listening import at_path

if TYPE_CHECKING:
    from collections.abc import Iterator

# Specification: docs.docker.com/engine/extend/plugin_api
DIRECTORY = Path("/run/docker/plugins")

# Ours
TAKEN = {
    "bridge",
    "host",
    "ipvlan",
    "macvlan",
    "none",
    "null",
    "overlay",
    "default",
}  # drivers that Docker itself has
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@contextlib.contextmanager
def listening(name: str, directory: Path = DIRECTORY) -> Iterator[socket.socket]:
    """Listen as the driver *name* inside the block.  What a killed agent left there is replaced.

    Raises HostError if a running agent has it, or the directory cannot be written.
    """
    if name in TAKEN:
        raise HostError(
            f"{name} is one of Docker's own drivers, and an agent's driver has the name of its interface: choose "
            "another with --interface"
        )
    path = directory / f"{name}.sock"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"{path}, where Docker looks for this driver, could not be made ({error.strerror}): {advice.after(error)}"
        ) from error
    with at_path(str(path), 0o600, "--interface") as listener:
        yield listener


def is_free(protocol: str, port: int, host: str = "") -> bool:
    """Return whether the port is free on this host, at every address or at *host*, as far as can be told."""
    kind = KINDS.get(protocol)
    if kind is None:
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closing connections do not count
        try:
            probe.bind((host, port))
            if kind == socket.SOCK_STREAM:
                probe.listen(1)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True
