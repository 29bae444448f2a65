"""Scheduling priorities: the forwarder runs before the agent and other programs, a capture after all of them.

A kernel tunnel seals its packets before any program runs; a forwarder that waits for its turn among programs adds that
wait to each round trip.

The size of its share and the moment at which it gets it are separate.  Since Linux 6.6 a running program keeps the
processor for its slice, or until the next tick, however large the share of a program that wakes up meanwhile: up to 4
ms for each single packet.  Since 6.12 a program with a shorter slice than the running one does not have to wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct

# Specification (Linux include/uapi/linux/sched/types.h, the first version of struct sched_attr):
# - 4 bytes size of this, 4 bytes policy, 8 bytes flags
# - 4 bytes nice value, 4 bytes priority of real-time policies
# - 8 bytes runtime: of usual policies the slice; 8 bytes deadline, 8 bytes period; in nanoseconds
ATTRIBUTES = struct.Struct("=IIQiIQQQ")
# sched_setattr() and sched_getattr(), for which older C libraries have no function (asm/unistd_64.h,
# asm-generic/unistd.h)
CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}

# Specification (proc_uptime(5))
UPTIME = "/proc/uptime"

# Ours
NICE = -10  # nine times the share of a program that competes with it
SLICE = 100_000  # nanoseconds; the shortest that Linux accepts

_libc = ctypes.CDLL(None, use_errno=True)


def prefer() -> None:
    """Give this process, and threads that it starts, a larger share, and the processor as soon as they wake up.

    A larger share needs CAP_SYS_NICE, a shorter slice Linux 6.12; what is not available stays unchanged.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    _shorten_slice()


def give_way() -> None:
    """Let this process run after all others of its group: on an idle processor, and hardly on any other."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def stop_giving_way() -> None:
    """Undo give_way().  On some systems this needs CAP_SYS_NICE; without it nothing changes."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class IdleTime:
    """How long the processors have been idle according to the kernel, which includes waiting for a disk."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(UPTIME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    def seconds(self) -> float:
        """Return the sum over all processors since the system started; 0 if the kernel does not report it."""
        if self._descriptor < 0:
            return 0.0
        try:
            return float(os.pread(self._descriptor, 100, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0

    def close(self) -> None:
        """Stop asking."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _shorten_slice() -> None:
    """Make the scheduler switch to and from this process more often, unless it has another policy."""
    calls = CALLS.get(platform.machine())
    if calls is None:
        return
    set_attributes, get_attributes = map(ctypes.c_long, calls)
    this, told, no_flags = ctypes.c_long(0), ctypes.create_string_buffer(ATTRIBUTES.size), ctypes.c_ulong(0)
    if _libc.syscall(get_attributes, this, told, ctypes.c_ulong(ATTRIBUTES.size), no_flags) < 0:
        return
    size, policy, flags, nice, priority, _, deadline, period = ATTRIBUTES.unpack(told.raw)
    if policy == os.SCHED_OTHER:
        wanted = ATTRIBUTES.pack(size, policy, flags, nice, priority, SLICE, deadline, period)
        _libc.syscall(set_attributes, this, wanted, no_flags)  # a kernel without slices ignores it
