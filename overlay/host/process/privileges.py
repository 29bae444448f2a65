"""Dropping privileges: all of them in the forwarder, all but a few in the agent.

capabilities(7) defines the sets of a thread: bounding limits what an exec yields, ambient adds to it, inheritable
passes through it; permitted and effective are what the thread has.  All functions here change the calling thread, and
the threads and processes that it starts later.
"""

from __future__ import annotations

import ctypes
import enum
import os
import resource
import signal
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Capability(enum.IntEnum):
    """The capabilities that some part of an overlay may need (linux/capability.h)."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_NICE = 23

    def __str__(self) -> str:
        """Return the name used by manuals and systemd."""
        return f"CAP_{self.name}"


# Specification: linux/prctl.h, linux/capability.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITY_HEADER = struct.Struct("=Ii")  # version, thread (0: the caller)
CAPABILITY_SETS = struct.Struct("=6I")  # effective, permitted, inheritable of bits 0 to 31, then of 32 to 63
CAPABILITIES = 64

# Ours
THREADS = 8  # of the forwarder: one for each lane
KEPT_CAPABILITIES = (
    Capability.DAC_READ_SEARCH,  # files in a user's home: peers, keys, the interpreter of the next forwarder
    Capability.NET_ADMIN,  # tun, routes, marks
    Capability.NET_RAW,  # ICMP errors, and encapsulations without ports
    Capability.NET_BIND_SERVICE,  # a port below 1024, at a reload
    Capability.SETUID, Capability.SETGID, Capability.SETPCAP, Capability.KILL,  # to start and end a forwarder
    Capability.SYS_NICE,  # the forwarder's priority
)  # fmt: skip
"""What the agent keeps once it has started."""

_libc = ctypes.CDLL(None, use_errno=True)


def missing(capabilities: Collection[Capability]) -> set[Capability]:
    """Return which of *capabilities* this thread cannot use."""
    effective, _, _ = _read_sets()
    return {capability for capability in capabilities if not effective & 1 << capability}


def keep_only(capabilities: Collection[Capability]) -> list[str]:
    """Give up every capability except *capabilities*, also for processes that are started later.

    A process that this one starts as root gets these and no others.  A capability that this process lacks is not
    gained.  Returns a sentence for each thing that could not be given up.

    A process that may not limit what an exec yields, because it is not root, can no longer gain anything by an exec.
    Its forwarder runs as the same user, and must not look into this process, which has the keys.
    """
    kept: list[str] = []
    wanted = sum(1 << capability for capability in set(capabilities))
    if missing([Capability.SETPCAP]):
        _attempt(kept, "an exec may still gain privileges", lambda: _prctl(PR_SET_NO_NEW_PRIVS, 1))
    else:
        _attempt(kept, "the capability bounding set stays as it was", lambda: _limit_bounding(wanted))
    if os.geteuid() != 0:
        _attempt(kept, "other processes of the user may trace this one", lambda: _prctl(PR_SET_DUMPABLE, 0))
    _attempt(kept, "ambient capabilities stay", _clear_ambient)
    _, permitted, _ = _read_sets()
    _attempt(kept, "capabilities stay as they were", lambda: _write_sets(permitted & wanted))
    return kept


def drop_all(uid: int | None, parent: int | None = None, threads: int = 0) -> list[str]:
    """Give up every privilege for good, and become the user and group *uid*; None keeps the present ones.

    Afterwards the process can use its descriptors, and little else: it cannot read what only root may read, gain a
    privilege by an exec, start a process, be traced by other users, or leave a core dump.  Until start_nothing() it may
    have *threads*; `overlay.host.process.seccomp` ensures that they are not processes.  With *parent*, it dies with
    that process; if that is dead already, at once.  (What counts is the *thread* of the parent that started this
    process: start the forwarder from a thread that lives as long as the agent.)

    Returns a sentence for each thing that could not be given up, as when it was started without root.
    """
    kept: list[str] = []
    _attempt(kept, "an exec may still gain privileges", lambda: _prctl(PR_SET_NO_NEW_PRIVS, 1))
    # Each step needs a capability that the next one takes away.
    if kept or not missing([Capability.SETPCAP]):  # otherwise the set no longer matters
        _attempt(kept, "the capability bounding set stays as it was", lambda: _limit_bounding(0))
    if uid is not None:
        _attempt(kept, "the groups stay as they were", lambda: os.setgroups([]))
        _attempt(kept, f"the group id stays {os.getgid()}", lambda: os.setresgid(uid, uid, uid))
        _attempt(kept, f"the user id stays {os.getuid()}", lambda: os.setresuid(uid, uid, uid))
    _attempt(kept, "ambient capabilities stay", _clear_ambient)
    _attempt(kept, "capabilities stay as they were", lambda: _write_sets(0))
    _attempt(kept, "other processes of the user may trace this one", lambda: _prctl(PR_SET_DUMPABLE, 0))
    _attempt(kept, "a crash may leave a core dump", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
    kept += start_nothing(threads)
    if parent is not None:  # last: a change of the user id clears it
        _attempt(
            kept, "this process may outlive its parent", lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        )
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
    return kept


def start_nothing(threads: int = 0) -> list[str]:
    """Allow the user of this process no further processes except *threads* of this one; return sentences like
    drop_all().
    """
    kept: list[str] = []
    limits = threads, threads
    _attempt(kept, "processes may be started", lambda: resource.setrlimit(resource.RLIMIT_NPROC, limits))
    return kept


def _attempt(kept: list[str], consequence: str, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        kept.append(f"{consequence}: {error.strerror}")


def _limit_bounding(wanted: int) -> None:
    for capability in range(CAPABILITIES):
        if wanted & 1 << capability:
            continue
        if _libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(capability), 0, 0, 0) == 1:
            _prctl(PR_CAPBSET_DROP, capability)


def _clear_ambient() -> None:
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _read_sets() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable sets, a bit for each capability."""
    sets = ctypes.create_string_buffer(CAPABILITY_SETS.size)
    _call_on_sets(_libc.capget, sets)
    low_high = CAPABILITY_SETS.unpack(sets.raw)
    effective, permitted, inheritable = (low_high[i] | low_high[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def _write_sets(permitted: int) -> None:
    """Set the effective and permitted sets to *permitted*, and empty the inheritable set."""
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    sets = ctypes.create_string_buffer(CAPABILITY_SETS.pack(low, low, 0, high, high, 0), CAPABILITY_SETS.size)
    _call_on_sets(_libc.capset, sets)


def _call_on_sets(function: Callable[..., int], sets: ctypes.Array[ctypes.c_char]) -> None:
    header = ctypes.create_string_buffer(
        CAPABILITY_HEADER.pack(CAPABILITY_VERSION_3, 0), CAPABILITY_HEADER.size
    )
    if function(header, sets) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
