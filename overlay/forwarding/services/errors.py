"""ICMP errors about the flows of a service: which flow one is about.

A router on a client's side tells the virtual address of a packet that a server sent from there; the server is to know.
The packet that is quoted has the addresses and ports of the flow exchanged.  Eight bytes behind its IP header are
enough (RFC 792); more are not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from overlay.forwarding.services.headers import upper_of
from overlay.wire.icmp import ICMP_HEADER
from overlay.wire.ip import PROTOCOL_ICMP

if TYPE_CHECKING:
    from overlay.forwarding.services.headers import Upper
    from overlay.wire.ip import Buffer

# Specification: what is about a packet that was sent (RFC 792, RFC 1122 section 3.2.2)
_ABOUT_PACKETS_V4 = frozenset({3, 4, 11, 12})
_INFORMATION_V6 = 128  # and above; below are errors, RFC 4443 section 2.1


class About(NamedTuple):
    """The flow that an error is about, as in the client's packets."""

    protocol: int
    key: bytes  # the client's address, the service's, and the two ports


def is_error(packet: Buffer, upper: Upper) -> bool:
    """Return whether *packet*, whose upper layer is ICMP, is an error about a packet."""
    if upper.protocol == PROTOCOL_ICMP:
        return packet[upper.at] in _ABOUT_PACKETS_V4
    return packet[upper.at] < _INFORMATION_V6


def about(packet: Buffer, upper: Upper) -> About | None:
    """Return which flow of the packet's destination an ICMP error is about; None if that cannot be told."""
    quoted = packet[upper.at + ICMP_HEADER.size :]
    inner = upper_of(quoted)
    if inner is None or inner.is_later or len(quoted) < inner.at + 4 or quoted[0] >> 4 != packet[0] >> 4:
        return None
    if packet[0] >> 4 == 4:
        ours, source, client = packet[16:20], quoted[12:16], quoted[16:20]
    else:
        ours, source, client = packet[24:40], quoted[8:24], quoted[24:40]
    if source != ours:
        return None
    ports = quoted[inner.at + 2 : inner.at + 4], quoted[inner.at : inner.at + 2]
    return About(inner.protocol, b"".join(map(bytes, (client, source, *ports))))
