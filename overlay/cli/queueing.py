"""What traffic control of this host has dropped, while peers were asked, where their packets pass."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.errors import HostError
from overlay.host.netlink.qdiscs import read_drops
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Specification: tc-bpf(8): their filters are those of packets that arrive, and for the first also of those that leave
FILTERS = {"clsact": ("ingress", "egress"), "ingress": ("ingress",)}

# Ours
NAMED = 3  # peers in a sentence


def read_queueing(interfaces: Iterable[str]) -> Mapping[tuple[str, str], int]:
    """Return how many packets were dropped so far, by interface and kind of qdisc; nothing if that is not known."""
    names = {}
    for name in interfaces:
        with contextlib.suppress(OSError):  # gone meanwhile
            names[socket.if_nametoindex(name)] = name
    try:
        drops = read_drops()
    except HostError:
        return {}
    return {(names[index], kind): number for (index, kind), number in drops.items() if index in names}


def describe(
    before: Mapping[tuple[str, str], int], after: Mapping[tuple[str, str], int], silent: Sequence[str]
) -> Iterable[Finding]:
    """Yield a finding for each interface and kind of qdisc that has dropped packets between *before* and *after*.

    A queue drops packets whenever more is sent than its link takes, so that alone is not a fault; while the peers
    *silent* do not answer, it may be theirs.
    """
    for (interface, kind), number in after.items():
        more = number - before.get((interface, kind), number)
        if more <= 0:
            continue
        sides = FILTERS.get(kind)
        whose = "a queue" if sides is None else "filters"
        dropped = f"{whose} of traffic control at {interface} ({kind}) dropped {count(more, 'packet')}"
        look = f"`tc -s qdisc show dev {interface}`"
        if sides is not None:
            look = " and ".join(f"`tc -s filter show dev {interface} {side}`" for side in sides)
        if silent:
            shown = ", ".join(silent[:NAMED])
            rest = f" and {len(silent) - NAMED} more" if len(silent) > NAMED else ""
            yield Finding(
                "tc_drops",
                f"{dropped} while {shown}{rest} did not answer",
                f"see with {look} which packets, and let those of the tunnel pass",
            )
        else:
            yield Finding(
                "tc_limits",
                f"{dropped} while no peer was silent",
                f"see with {look} which packets",
            )
