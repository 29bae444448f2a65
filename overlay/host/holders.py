"""Which process has a UDP port that this process cannot get, as far as this process can see.

The kernel shows everybody which user has the socket of a port. The process is found by its list of descriptors, which
root can read for all processes, and others only for their own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.host import control
from overlay.host.udp_table import bound_sockets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from overlay.host.plan import IPAddress

PROCESSES = Path("/proc")

# Ours
LOOKED_AT = 100_000  # descriptors at most, which take a second


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a port: a user and, if known, the process, its program, and the interface if it is one of our agents."""

    user: int
    process: int | None = None
    program: str = ""
    interface: str | None = None

    @property
    def user_name(self) -> str:
        """The name of the user, or its number if it has no name."""
        try:
            return pwd.getpwuid(self.user).pw_name
        except KeyError:
            return str(self.user)


def find_holder(port: int, listen: Sequence[IPAddress], ours: Collection[int] = ()) -> Holder | None:
    """Return who has *port*, so that this process cannot have it for an address of *listen* (empty: for every address).

    *ours* are inodes of sockets that do not count.  None if there is no holder, as when the port is free by now.
    """
    in_the_way = []
    with contextlib.suppress(OSError):
        in_the_way = [
            each
            for each in bound_sockets()
            if each.port == port and each.inode not in ours and _overlaps(each.address, listen)
        ]
    if not in_the_way:
        return None
    wanted = {f"socket:[{each.inode}]": each.user for each in in_the_way}
    for process, interface in _agents():
        for link in _descriptors(process):
            if link in wanted:
                return Holder(wanted[link], process, _program(process), interface)
    for process, link in islice(_everybody(), LOOKED_AT):
        if link in wanted:
            return Holder(wanted[link], process, _program(process))
    return Holder(in_the_way[0].user)


def _overlaps(bound: IPAddress, listen: Sequence[IPAddress]) -> bool:
    mapped = getattr(bound, "ipv4_mapped", None) or bound
    return (
        not listen or mapped.is_unspecified or any(each.is_unspecified or each == mapped for each in listen)
    )


def _agents() -> Iterator[tuple[int, str]]:
    """Yield the process and the interface of each agent that this user may see."""
    for directory in control.directories():
        with contextlib.suppress(OSError):
            for lock in sorted(directory.glob("*.lock")):
                with contextlib.suppress(OSError, ValueError):
                    yield int(lock.read_text()), control.interface_of(lock.with_suffix(".sock"))


def _everybody() -> Iterator[tuple[int, str]]:
    """Yield each process with each of its descriptors that this process may see."""
    with contextlib.suppress(OSError):
        for path in PROCESSES.iterdir():
            if path.name.isdigit():
                for link in _descriptors(int(path.name)):
                    yield int(path.name), link


def _descriptors(process: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for path in PROCESSES.joinpath(str(process), "fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(path)


def _program(process: int) -> str:
    try:
        return PROCESSES.joinpath(str(process), "comm").read_text(errors="replace").strip()
    except OSError:
        return ""
