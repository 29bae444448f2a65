"""Buffers of the underlay sockets that the kernel made smaller than requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts

# Ours
WANTED = 8 * 1024 * 1024  # bytes, as overlay.host.sockets.underlay asks for
LEAST = 1024 * 1024  # bytes; with less, a pause of a few milliseconds loses packets


def check_buffers(facts: Facts) -> Iterator[Finding]:
    """Yield that bursts are lost if the kernel gave the receiving sockets small buffers."""
    granted = min((each.receive_buffer for each in facts.udp if each.receive_buffer), default=WANTED)
    if granted < LEAST:
        yield Finding(
            "udp_buffers",
            f"the kernel grants UDP sockets of this agent buffers of {granted // 1024} KiB, "
            "so bursts of packets are lost",
            f"run `sysctl -w net.core.rmem_max={WANTED} net.core.wmem_max={WANTED}` and restart the agent",
        )
