"""Packets that are larger than the underlay carries unfragmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts


def check_mtu(facts: Facts) -> Iterator[Finding]:
    """Yield that datagrams are fragmented, and that many firewalls drop fragments."""
    mtu, room = facts.plan.mtu, facts.room
    if room is None or mtu <= room:
        return
    problem = (
        f"the MTU of {facts.device.name} is {mtu}, but the way to the peers carries packets of at most {room} bytes, "
        f"so the datagrams of larger ones are fragmented, which many firewalls drop"
    )
    if facts.node.table.network.mtu is not None:
        remedy = f"remove mtu from the peers file, or write at most {room}"
    else:
        remedy = f"raise the MTU of the interface that leads there: IPv6 needs {mtu} bytes inside the tunnel"
    yield Finding("mtu_over_path", problem, remedy)
