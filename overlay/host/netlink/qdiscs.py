"""Packets that traffic control has dropped at the devices of this host: in its queues, and by its filters."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import Kernel, refusal
from overlay.host.netlink.rtnetlink import NLM_F_DUMP, build_message, read_attributes
from overlay.linux import NETLINK_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

# Specification: linux/rtnetlink.h, linux/gen_stats.h
RTM_GETQDISC = 38
TRAFFIC_CONTROL = struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, information
ATTRIBUTES_OFFSET = NETLINK_HEADER.size + TRAFFIC_CONTROL.size
TCA_KIND, TCA_STATS2, TCA_STATS_QUEUE = 1, 7, 3
QUEUE = struct.Struct("=IIIII")  # struct gnet_stats_queue: length, backlog, drops, requeues, overlimits


def read_drops() -> Mapping[tuple[int, str], int]:
    """Return how many packets each kind of qdisc has dropped so far, by the index of the device and the kind.

    Packets that filters drop are counted at the qdisc of the filters: ``clsact`` or ``ingress`` for arriving packets,
    whatever the filters are.  Any user may ask.  Raises HostError.
    """
    question = build_message(RTM_GETQDISC, NLM_F_DUMP, TRAFFIC_CONTROL.pack(0, 0, 0, 0, 0))
    try:
        with contextlib.closing(Kernel()) as kernel:
            return count_drops(kernel.ask(question))
    except OSError as error:
        raise refusal("traffic control of this host could not be read", error) from error


def count_drops(answers: list[bytes]) -> Mapping[tuple[int, str], int]:
    """Return the result of read_drops() from the kernel's *answers*."""
    found: Counter[tuple[int, str]] = Counter()
    for raw in answers:
        _, index, *_ = TRAFFIC_CONTROL.unpack_from(raw, NETLINK_HEADER.size)
        qdisc = dict(read_attributes(raw, ATTRIBUTES_OFFSET))
        queue = dict(read_attributes(qdisc.get(TCA_STATS2, b""), 0)).get(TCA_STATS_QUEUE, b"")
        if len(queue) >= QUEUE.size:
            kind = qdisc.get(TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
            found[index, kind] += QUEUE.unpack_from(queue)[2]
    return found
