"""The load of an agent's processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

# Specification: proc_pid_stat(5): the fields after the name, which may contain spaces
USER_TIME, SYSTEM_TIME = 11, 12

# Ours
BUSY = 0.9  # of a processor, by one thread
PROCESSES = Path("/proc")


@dataclass(frozen=True, slots=True)
class Load:
    """Processor seconds that each thread of a process has used, at the time *now*."""

    now: float
    used: Mapping[str, float]

    @classmethod
    def read(cls, pid: int | None, now: float, processes: Path = PROCESSES) -> Load:
        """Return the load of the process *pid*; empty if it is gone or hidden."""
        used: dict[str, float] = {}
        tick = os.sysconf("SC_CLK_TCK")
        try:
            threads = list((processes / str(pid) / "task").iterdir())
        except OSError:
            threads = []
        for each in threads:
            try:
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                used[each.name] = (int(fields[USER_TIME]) + int(fields[SYSTEM_TIME])) / tick
            except (OSError, ValueError, IndexError):
                continue
        return cls(now, used)

    def busiest_since(self, before: Load) -> float:
        """Return the share of a processor that the busiest thread has used since *before*."""
        passed = self.now - before.now
        if passed <= 0:
            return 0.0
        shares = (
            (used - before.used[name]) / passed for name, used in self.used.items() if name in before.used
        )
        return max(shares, default=0.0)


def describe(pid: int | None, before: Load, after: Load) -> Finding | None:
    """Return the finding that the forwarder, process *pid*, is at its limit; None if it is not."""
    share = after.busiest_since(before)
    if share < BUSY:
        return None
    return Finding(
        "forwarder_busy",
        f"the forwarder (process {pid}) uses {100 * min(share, 1.0):.0f} % of a processor, "
        "so this host cannot carry more packets",
        "see `overlay status --watch` for the peers that send most; a host with more processors has --lanes",
    )
