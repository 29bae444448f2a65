"""How the scheduler treats the forwarder: packets go before what the agent computes, and before other programs.

A tunnel of the kernel seals its packets before any program runs; a forwarder that waits for its turn among programs
adds that wait to each round trip.
"""

from __future__ import annotations

import contextlib
import os

# Ours
NICE = -10  # nine times the share of a program that runs beside it


def prefer() -> None:
    """Let this process go first, which needs CAP_SYS_NICE; without that it stays as it is."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
