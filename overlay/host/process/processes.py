"""The resources that a process of this host uses, as the kernel counts them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from overlay.host import clock

# Specification: proc_pid_stat(5)
USER_TIME, SYSTEM_TIME, THREADS, START_TIME, RESIDENT = 13, 14, 19, 21, 23  # fields, from 0

# Ours
PROCESSES = Path("/proc")
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses.  *started* is in seconds of clock.now(); None is what this process may not see."""

    cpu: float  # seconds
    resident: int  # bytes
    threads: int
    started: float
    descriptors: int | None
    most_descriptors: int | None


def usage(pid: int) -> Usage | None:
    """Return what the process *pid* uses; None if it does not exist, or /proc does not show it."""
    place = PROCESSES / str(pid)
    try:
        # The name of the program, which may contain anything, ends at the last bracket.
        text = (place / "stat").read_text(errors="replace")
        fields = ["", "", *text[text.rindex(")") + 1 :].split()]
        return Usage(
            (int(fields[USER_TIME]) + int(fields[SYSTEM_TIME])) / _TICKS,
            int(fields[RESIDENT]) * _PAGE,
            int(fields[THREADS]),
            int(fields[START_TIME]) / _TICKS,
            _count_descriptors(place),
            _most_descriptors(place),
        )
    except (OSError, ValueError, IndexError):
        return None


def wall_time(moment: float) -> float:
    """Return *moment*, of clock.now(), in seconds since 1970, by the current setting of the wall clock."""
    return time.time() - clock.now() + moment


def _count_descriptors(place: Path) -> int | None:
    try:
        return len(os.listdir(place / "fd"))
    except OSError:
        return None


def _most_descriptors(place: Path) -> int | None:
    try:
        text = (place / "limits").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else None
    return None
