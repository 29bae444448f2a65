"""A user id for each forwarder, so that a forwarder that was taken over can neither signal nor inspect another.

The agent takes the lowest id that no other agent has and holds it with a lock on one byte of a file that only root can
open; the kernel releases the lock when the agent ends, for whatever reason.  Agents in containers that share the ids
but neither the file nor a process table may take the same id, and cannot reach each other's processes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from overlay.errors import HostError
from overlay.host import advice

# Specification: fcntl.h
FLOCK = struct.Struct("@hhqqi")  # type, whence, start, length, process

# Ours
# Neither Debian (which reserves 65000 to 65533) nor systemd (whose services without a fixed id get up to 65519)
# gives these to anybody.  They are below 65536, so that they exist in a container with the usual mapping, and leave out
# nobody (65534), whose other processes could signal us.
USER_IDS = range(65520, 65534)
# For more agents than that on a host: systemd and Debian leave these free, and the ranges that map ids for containers
# are elsewhere (524288 to 1879048191).  Most containers have no such ids.
MORE_USER_IDS = range(0x70000000, 0x70000000 + 4096)
FILE = "uids"  # next to the control sockets
UID_MAP = Path("/proc/self/uid_map")


@dataclass(frozen=True, slots=True)
class UserId:
    """An id that this agent has until close()."""

    uid: int
    lock: int  # descriptor of the file

    def close(self) -> None:
        """Release it for the next agent."""
        os.close(self.lock)


def take(directory: Path) -> UserId:
    """Return the lowest id that no other agent beside *directory* has.  Raises HostError if all are taken.

    If none of them exists, as in a user namespace that only maps root, the id returned is one that nobody can become:
    the forwarder then keeps its user, and reports it.
    """
    path = directory / FILE
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"{path} could not be opened: {error.strerror}; {advice.after(error)}") from error
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, lock)
        mapped = _mapped()
        ids = list(enumerate(chain(USER_IDS, MORE_USER_IDS)))
        there = [(place, uid) for place, uid in ids if any(uid in each for each in mapped)]
        if not there:
            undo.pop_all()
            return UserId(USER_IDS[0], lock)
        for place, uid in there:
            try:
                fcntl.fcntl(lock, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise HostError(f"{path} could not be locked: {error.strerror}") from error
                continue
            undo.pop_all()
            return UserId(uid, lock)
    raise HostError(
        "every user id for forwarders is in use by another agent: stop one with `overlay down`"
    ) from OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _mapped() -> list[range]:
    """Return the ids that exist in this user namespace (user_namespaces(7))."""
    rows = [tuple(map(int, line.split())) for line in UID_MAP.read_text().splitlines()]
    return [range(first, first + count) for first, _, count in rows]
