"""Datagrams for a peer that wait for the end of a batch, in one queue or in several that separate flows.

Where an encapsulation sends from many ports, so that what is between the peers can spread flows over queues and paths
by them (RFC 7348 section 5, RFC 6438), each of a peer's lanes has one of the ports, and a flow one lane.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar
from zlib import crc32

from overlay.wire.ip import PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP

_WITH_PORTS = frozenset({PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP})


P = TypeVar("P")  # whom a lane is for: a peer


class FlowQueue(ABC, Generic[P]):
    """Datagrams made in this batch and not yet sent: all of one size except for the last.  A peer is its own first
    lane.
    """

    __slots__ = ("has_ports", "pending", "pending_closed", "pending_marks", "pending_size")

    flow: int = 0  # which of the sockets it sends from, modulo their number

    def __init__(self, has_ports: bool) -> None:
        """*has_ports*: they leave from UDP sockets, which cut one send in datagrams of one size."""
        self.has_ports = has_ports
        self.pending: list[memoryview] = []
        self.pending_size = 0
        self.pending_marks = 0
        self.pending_closed = False

    @property
    @abstractmethod
    def peer(self) -> P:
        """Whom the datagrams go to."""


class FurtherFlow(FlowQueue[P]):
    """A lane in addition to a peer's first."""

    __slots__ = ("flow", "peer")

    flow: int
    peer: P

    def __init__(self, peer: P, flow: int) -> None:
        super().__init__(has_ports=True)
        self.peer, self.flow = peer, flow


def hash_flow(packet: memoryview) -> int:
    """Return a number that is the same for all packets of one flow of the IP packet *packet*.

    A flow is what goes between two addresses and, where all packets have them, two ports: in fragments not all do.
    """
    if packet[0] >> 4 == 4:
        has_ports = packet[0] == 0x45 and not packet[6] & 0x3F and not packet[7] and packet[9] in _WITH_PORTS
        return crc32(packet[12 : 24 if has_ports else 20])
    return crc32(packet[8 : 44 if packet[6] in _WITH_PORTS else 40])
