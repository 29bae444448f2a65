"""Packets that the kernel drops because the tun is not read fast enough; it counts them at the device."""

from __future__ import annotations

from pathlib import Path

STATISTICS = Path("/proc/net/dev")  # of the reader's own network namespace, whatever /sys shows
# Specification: Linux net/core/net-procfs.c; the columns behind the name
_TX_DROPPED = 11


def overruns(interface: str) -> int:
    """Return how many packets for *interface* the kernel has dropped since the interface was made; 0 if it does not
    exist.
    """
    try:
        lines = STATISTICS.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, columns = line.strip().partition(":")
        if name == interface:
            numbers = columns.split()
            return int(numbers[_TX_DROPPED]) if len(numbers) > _TX_DROPPED else 0
    return 0
