"""Whether a packet of some size fits the tunnel to a peer, and what happens to one that does not.

There are two limits.  The kernel checks the MTU of the device before it hands the packet to the forwarder; the
forwarder checks the path MTU, see ``overlay.forwarding.path.oversize``, or ``overlay.forwarding.ethernet`` for frames.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlay.explaining.explanation import KERNEL, NODE, Origin
from overlay.services.delivery import HEADERS
from overlay.wire.bulk import MINIMUM_SEGMENT
from overlay.wire.ip import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.explaining.explanation import Explanation
    from overlay.explaining.facts import Facts


class Fate(enum.Enum):
    """What happens to a packet of that size."""

    WHOLE = "whole"
    OUTER_FRAGMENTED = "outer_fragmented"  # whole itself, but its datagram may be fragmented
    FRAGMENTED = "fragmented"
    TOO_BIG = "too_big"


@dataclass(frozen=True, slots=True)
class _Limits:
    """How large packets may be, in bytes.

    *kernel* is the limit for packets into the device, *path* for datagrams that are not fragmented, *room* for what the
    forwarder sends whole: None with a tap, where the sender cannot be informed.
    """

    kernel: int
    path: int
    room: int | None
    is_ipv6: bool
    is_sent_here: bool

    @property
    def largest(self) -> int:
        """The largest packet that passes whole."""
        return self.kernel if self.room is None else min(self.kernel, self.room)

    def fate(self, size: int) -> tuple[Fate, str | None]:
        """Return what happens to a packet of *size* bytes, with DF if IPv4, and who refuses it."""
        is_cut_by_kernel = self.is_ipv6 and self.is_sent_here  # RFC 8200 section 4.5: only its source may
        if size > self.kernel and not is_cut_by_kernel:
            return Fate.TOO_BIG, KERNEL
        if self.room is not None and min(size, self.kernel) > self.room:
            return Fate.TOO_BIG, NODE
        if size > self.kernel:
            return Fate.FRAGMENTED, None
        return (Fate.WHOLE if size <= self.path else Fate.OUTER_FRAGMENTED), None


def fit(facts: Facts, row: Mapping[str, Any], size: int, found: Explanation) -> None:
    """Explain what happens to a packet of *size* bytes on its way to the peer of *row*.

    An IPv4 packet is assumed to have DF; the explanation also says what happens without.
    """
    assert found.route is not None
    assert not isinstance(found.destination, str)
    version, device, known = found.destination.version, facts.plan.mtu, row["path_mtu"]
    limits = _limits(facts, known, found)
    fate, by = limits.fate(size)
    without_df = Fate.FRAGMENTED if fate is Fate.TOO_BIG else fate
    told = None
    if by is not None and not (by == KERNEL and limits.is_sent_here):
        told = limits.kernel if by == KERNEL else limits.room
    mss = max(limits.path, IPV6_MINIMUM_MTU if limits.is_ipv6 else 0) - HEADERS[version]
    units = (row.get("unit_segments") or None) if size >= MINIMUM_SEGMENT + HEADERS[version] else None
    found.fit = {
        "size_bytes": size,
        "device_mtu_bytes": device,
        "route_mtu_bytes": found.route.mtu,
        "path_mtu_bytes": known,
        "largest_bytes": limits.largest,
        "mss_bytes": mss,
        "fate": fate.value,
        "fate_without_df": None if limits.is_ipv6 else without_df.value,
        "icmp_mtu_bytes": told,
        "unit_segments": units,
    }
    path = f"the path MTU to {found.peer} is {known}"
    if known is None:
        path = f"no smaller path MTU to {found.peer} is known"
    found.say(
        "limits",
        f"packets of up to {limits.largest} bytes pass whole: the MTU of {facts.interface} is {device}, and {path}; "
        f"SYNs announce an MSS of at most {mss}",
    )
    _conclude(found, limits, fate, by, told)
    if fate is Fate.WHOLE and units is not None:
        found.say(
            "units",
            f"one bulk unit carries up to {units} segments of a flow that the kernel hands over together",
        )


def _limits(facts: Facts, known: int | None, found: Explanation) -> _Limits:
    assert found.route is not None
    assert not isinstance(found.destination, str)
    device, is_sent_here = facts.plan.mtu, found.origin is Origin.HERE
    is_ipv6 = found.destination.version == 6
    # What the kernel has learned about a path applies to packets that it sends, not to those that it forwards.
    kernel = min(device, found.route.mtu or device) if is_sent_here else device
    path = min(device, known or device)
    room = None if facts.node.is_tap else max(path, IPV6_MINIMUM_MTU) if is_ipv6 else path
    return _Limits(kernel, path, room, is_ipv6, is_sent_here)


def _conclude(found: Explanation, limits: _Limits, fate: Fate, by: str | None, told: int | None) -> None:
    """Say what happens to the packet, and refuse it if it is too big."""
    size, cut = found.size, "" if limits.is_ipv6 else "; without DF it would be fragmented"
    if by is not None:
        what = f"{size} bytes" if limits.is_ipv6 else f"{size} bytes with DF"
        answer = f"the kernel refuses to send {what} where the MTU is {limits.kernel}"
        if told is not None:
            error = "ICMPv6 packet too big" if limits.is_ipv6 else "ICMP fragmentation needed"
            answer = f"the sender of {what} is told that {told} pass ({error})"
        found.refuse(by, f"{answer}{cut}", "path_mtu" if by == NODE else None)
    elif fate is Fate.FRAGMENTED:
        found.say(
            "fits",
            f"{size} bytes are sent in fragments of up to {limits.kernel}, unless the program forbids it",
        )
    else:
        found.say("fits", f"{size} bytes pass whole")
    if fate is Fate.OUTER_FRAGMENTED:
        found.doubt(
            "its datagram is larger than the path takes: it is fragmented outside the tunnel, or lost there"
        )
