"""Packets that the kernel drops because they are not read from a tun fast enough; it counts them at the device."""

from __future__ import annotations

from pathlib import Path

STATISTICS = Path("/proc/net/dev")  # of the network namespace of who reads it, whatever /sys shows
# Specification: Linux net/core/net-procfs.c; the columns behind the name
_TX_DROPPED = 11


def overruns(interface: str) -> int:
    """Return how many packets for *interface* the kernel has dropped since it was made; 0 if there is none."""
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
