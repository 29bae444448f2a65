"""How the scheduler treats the forwarder and a capture: packets go before what the agent computes, and before other
programs, and a capture after all of them.

A tunnel of the kernel seals its packets before any program runs; a forwarder that waits for its turn among programs
adds that wait to each round trip.
"""

from __future__ import annotations

import contextlib
import os

# Specification (proc_uptime(5))
UPTIME = "/proc/uptime"

# Ours
NICE = -10  # nine times the share of a program that runs beside it


def prefer() -> None:
    """Let this process go first, which needs CAP_SYS_NICE; without that it stays as it is."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def give_way() -> None:
    """Let this process go after all others of its group: it runs on a processor that is idle, and hardly on any other."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def stop_giving_way() -> None:
    """Undo give_way(), which needs CAP_SYS_NICE on some systems; without that it stays as it is."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class IdleTime:
    """How long the processors have been idle, as the kernel counts it: with those that wait for a disk."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(UPTIME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    def seconds(self) -> float:
        """Return the sum over all processors since the system was started; 0 where the kernel does not tell."""
        if self._descriptor < 0:
            return 0.0
        try:
            return float(os.pread(self._descriptor, 100, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0

    def close(self) -> None:
        """Ask no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
