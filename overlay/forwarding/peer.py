"""A peer as the forwarder knows it: where it is, its keypairs, and what was counted."""

from __future__ import annotations

import math
import socket
import sys
from typing import TYPE_CHECKING

from overlay.encap import wireguard
from overlay.encap.encapsulation import Ends
from overlay.forwarding.bulk.asking import Asking
from overlay.forwarding.keypair import Keypairs
from overlay.forwarding.moves import Moves
from overlay.forwarding.underlay.flows import FlowQueue, FurtherFlow
from overlay.forwarding.underlay.outer_header import TOS, TTL_SHIFT
from overlay.linux import SOL_UDP, UDP_SEGMENT
from overlay.reasons import Drops
from overlay.wire.addresses import pack_host

if TYPE_CHECKING:
    from overlay.encap.encapsulation import Encapsulation
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.path.search import PathMtu
    from overlay.forwarding.ratelimit import Bucket
    from overlay.forwarding.table import Prefixes
    from overlay.forwarding.underlay.udp_socket import Ancillary, UdpSocket
    from overlay.wire.addresses import Sockaddr

# TOS and TTL, by the number of fields that an address has
_OUTER = {
    2: ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IP, socket.IP_TTL)),
    4: ((socket.IPPROTO_IPV6, socket.IPV6_TCLASS), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)),
}

# Ours
_NO_PREFIX: dict[int, bytes] = {4: b"", 6: b""}
WIDE = 1 << 17  # as a path MTU: nothing that the tun carries is larger, super-packets included
CONTROLS = 64  # remembered before starting over: sizes of datagrams that go in trains


class Peer(FlowQueue["Peer"]):
    """All that the packet path asks of a peer, as plain attributes."""

    __slots__ = (
        "asking", "clear",
        "controls",
        "drops",
        "encapsulation",
        "endpoint",
        "endpoint_address",
        "endpoint_port",
        "ends",
        "finish",
        "frame_header",
        "has_ports",
        "is_path_known",
        "is_silent",
        "is_unreachable",
        "keepalive",
        "keypairs",
        "lanes",
        "last_received",
        "last_traffic",
        "messages",
        "moves",
        "number",
        "omits",
        "owed_since",
        "path",
        "path_due",
        "path_mtu",
        "path_packets",
        "prefix",
        "received_source",
        "reporting",
        "rx_bytes",
        "rx_packets",
        "rx_units",
        "segment_limit",
        "segment_limit_ends",
        "segment_size",
        "senders",
        "sequence",
        "sequence_at",
        "socket",
        "source",
        "sources",
        "timers",
        "tx_bytes",
        "tx_packets",
        "tx_units",
        "unanswered_since",
        "wanted_at",
    )  # fmt: skip

    def __init__(self, number: int, encapsulation: Encapsulation = wireguard.ENCAPSULATION) -> None:
        super().__init__()
        self.number = number
        self.encapsulation = encapsulation
        # None where what is sent is sealed; a peer in the clear has no keypairs
        self.clear = encapsulation.clear
        self.has_ports = encapsulation.has_ports
        self._use_ends(Ends())
        # One for each port that is sent from; none where there is but one, and the peer is the lane
        self.lanes = [FurtherFlow(self, flow) for flow in range(encapsulation.senders)]
        self.sources: Prefixes[bool] | None = None  # beside its own, from where it may send in the clear
        self.keypairs: Keypairs[Peer] = Keypairs()
        self.asking = Asking()
        self.endpoint: Sockaddr | None = None
        self.endpoint_address = b""  # packed, to recognise our own datagrams in the tun
        self.endpoint_port = b""
        self.moves = Moves()
        self.socket: UdpSocket | None = None
        self.senders: dict[int, UdpSocket] = {}  # in its place without ports: by marks
        self.source: Ancillary = []  # the local address it was heard at; sent back from there
        self.received_source: object = None  # the control message that `source` was made from
        self.controls: dict[
            tuple[int, int], Ancillary
        ] = {}  # `source`, TOS and cutting, made once for each pair
        self.keepalive = 0.0  # seconds; 0 is off
        self.messages: Bucket | None = None  # permits for in-band control messages, once one came
        self.path: PathMtu | None = None  # the search for its MTU, once there was one
        self.path_packets = 0  # packets for it when the search looked last
        self.path_mtu = WIDE  # the largest packet that reaches it; WIDE where that is the tun's MTU
        self.path_due = 0.0  # when the kernel is to be asked for it
        self.is_path_known = False  # the kernel has told it
        self.omits = False  # the kernel's word for it does not count: probes tell
        # Without ports: of super-packets that a kernel made of its packets, and that do not say so
        self.segment_limit = WIDE  # the largest packet that goes on from here, as an ICMP error told
        self.segment_limit_ends = 0.0  # when that is to be forgotten
        self.segment_size = 0  # of the last that told
        self.sequence: int | None = None  # the last number of a numbered packet, and when it came
        self.sequence_at = 0.0
        self.is_unreachable = False  # given up; the next handshake completed ends it

        # Timers, in seconds of CLOCK_BOOTTIME; 0 is "nothing outstanding", or never
        self.unanswered_since = 0.0  # data was sent and nothing has been received since
        self.is_silent = (
            False  # it was not answered in the time that the protocol gives, as the agent was told
        )
        self.owed_since = 0.0  # data was received and nothing has been sent since
        self.last_traffic = -math.inf  # authenticated, either way
        self.last_received = 0.0
        self.wanted_at = 0.0  # when the agent was last asked for a session
        self.reporting: Keypair[Peer] | None = None  # units came under it and are to be reported
        self.timers: dict[str, int] = {}  # the entry in force in the heap, for each kind that has one

        self.tx_bytes = self.rx_bytes = self.tx_packets = self.rx_packets = self.tx_units = self.rx_units = 0
        self.drops = Drops()

    @property
    def peer(self) -> Peer:
        """Itself, as the one whom the datagrams of its first lane go to."""
        return self

    def set_ends(self, ends: Ends) -> None:
        """Make and take payloads of a tunnel with *ends* from now on."""
        if ends != self.ends:  # or sequence numbers would begin anew
            self._use_ends(ends)

    def _use_ends(self, ends: Ends) -> None:
        self.ends = ends
        self.prefix = self.clear.prefix(ends) if self.clear is not None else _NO_PREFIX
        self.finish = self.clear.finisher(ends) if self.clear is not None else None
        frames = self.clear.frames if self.clear is not None else None
        self.frame_header = frames.header(ends) if frames is not None else b""

    def payload(self, packet: bytes) -> bytes:
        """Return the payload in the clear that carries *packet* by itself."""
        made = self.prefix[packet[0] >> 4] + packet
        if self.finish is None:
            return made
        unfinished = bytearray(made)
        self.finish(memoryview(unfinished))
        return bytes(unfinished)

    def move(self, endpoint: Sockaddr) -> None:
        """Send to *endpoint* from now on, from whatever address the host's routes choose."""
        self.endpoint = endpoint
        self.endpoint_address = pack_host(endpoint)
        self.endpoint_port = endpoint[1].to_bytes(2, "big")
        self.asking.again()
        self.forget_source()

    def forget_source(self) -> None:
        """Let the host's routes choose the local address again."""
        self.source, self.received_source = [], None
        self.controls = {}

    def answer_from(self, source: Ancillary, received: object) -> None:
        """Send from the local address that the peer was heard at."""
        self.source, self.received_source = source, received
        self.controls = {}

    def ancillary(self, marks: int, segment: int = 0) -> Ancillary:
        """Return the control messages for a send whose outer header has *marks*: TOS and TTL.

        The kernel cuts what is sent into datagrams of *segment* bytes, unless that is 0.
        """
        control = self.controls.get((marks, segment))
        if control is None:
            control = list(self.source)
            if self.endpoint is not None:
                wanted = zip(
                    _OUTER[len(self.endpoint)], (marks & TOS, marks >> TTL_SHIFT & 0xFF), strict=True
                )
                control += [(*where, value.to_bytes(4, sys.byteorder)) for where, value in wanted if value]
            if segment:
                control.append((SOL_UDP, UDP_SEGMENT, segment.to_bytes(2, sys.byteorder)))
            if len(self.controls) >= CONTROLS:
                self.controls.clear()
            self.controls[marks, segment] = control
        return control
