"""An underlay socket as the packet path uses it: UDP, or of an IP protocol."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from overlay.encap import wireguard
from overlay.encap.encapsulation import Layout, Role
from overlay.forwarding import state
from overlay.forwarding.path.discovery import Discovery
from overlay.forwarding.underlay.batching import Batching
from overlay.forwarding.underlay.crowding import Crowding
from overlay.wire.ip import PROTOCOL_UDP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.encap.encapsulation import Clear, Encapsulation
    from overlay.forwarding.underlay.mmsg import Carrier
    from overlay.forwarding.underlay.shares import SendQueue, Shares
    from overlay.wire.addresses import Sockaddr

Ancillary: TypeAlias = list[tuple[int, int, bytes]]
"""Control messages as socket.sendmsg takes them."""


class DatagramSocket(Protocol):
    """What the forwarder needs of a UDP socket; socket.socket has it."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def sendmsg(
        self, buffers: Iterable[memoryview | bytes], ancdata: Ancillary, flags: int, address: Sockaddr, /
    ) -> int: ...
    def recvmsg_into(
        self, buffers: Iterable[memoryview], ancbufsize: int, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Sockaddr]: ...


class UdpSocket(state.UdpSocketState):
    """One underlay socket.  *closes_at*: it has been replaced and is only read until then."""

    __slots__ = (
        "carrier",
        "clear",
        "crowding",
        "encapsulation",
        "family",
        "kernel_drops",
        "lane",
        "ports",
        "queue",
        "raw",
        "role",
    )

    discovery: Discovery
    pace: Batching
    sends_by: UdpSocket
    shares: Shares[Any] | None  # while much waits in the queue

    def __init__(
        self,
        raw: DatagramSocket,
        family: int,
        encapsulation: Encapsulation = wireguard.ENCAPSULATION,
        role: Role = Role.ALL,
        protocol: int = PROTOCOL_UDP,
        carrier: Carrier | None = None,
        queue: SendQueue | None = None,
        lane: int = 0,
    ) -> None:
        """*carrier* is that of a raw socket; *lane* the number of the lane that receives from it, or sends."""
        self.raw, self.family, self.closes_at = raw, family, math.inf
        self.encapsulation, self.role, self.protocol = encapsulation, role, protocol
        self.carrier, self.queue, self.pace = carrier, queue, Batching()
        self.descriptor, self.shares, self.lane = -1, None, lane
        self.crowding = Crowding()
        self.kernel_drops = 0  # of the kernel's counter, what is in ours
        self.clear: Clear | None = encapsulation.clear
        self.layout = Layout.OTHER if self.clear is None else self.clear.layout
        is_switched = protocol == PROTOCOL_UDP and role in {Role.ALL, Role.SENDS}
        self.discovery = Discovery(raw, family, is_switched=is_switched)
        # The socket that sends to those that this one receives from: itself, or the one that shares its port if it gets
        # handshakes
        self.sends_by = self
        self.ports: list[UdpSocket] = []  # that lanes send from in its place, by their numbers from 1 on


def pair(opened: Iterable[UdpSocket]) -> None:
    """Leave sends of those sockets of *opened* that get the handshakes, or are for other lanes, to the sockets whose
    ports they share, and let them rest in the same mode; also find the additional sockets that lanes send from.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        of_family = [udp for udp in opened if udp.family == family]
        first = [udp for udp in of_family if udp.role == Role.ALL]
        beside = [udp for udp in of_family if udp.role in {Role.HANDSHAKES, Role.LANE}]
        for number, udp in enumerate(first):
            # Opened in one order, those of the first before those of the second; where one cannot be, there are none
            each = len(beside) // len(first)
            others = beside[number * each : (number + 1) * each]
            udp.discovery.rest_with([other.raw for other in others])
            for other in others:
                other.sends_by = udp
        ports = [udp for udp in opened if udp.family == family and udp.lane and udp.role == Role.SENDS]
        for number, udp in enumerate(first):
            each = len(ports) // len(first)
            udp.ports = sorted(ports[number * each : (number + 1) * each], key=lambda port: port.lane)
            udp.discovery.lead([port.discovery for port in udp.ports])
