"""A peer as the forwarder knows it: where it is, its keypairs, and what was counted; parts that belong together are one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.encap import wireguard
from overlay.encap.encapsulation import Ends
from overlay.forwarding.bulk.asking import Asking
from overlay.forwarding.keypair import Keypairs
from overlay.forwarding.moves import Moves
from overlay.forwarding.underlay.flows import FlowQueue, FurtherFlow
from overlay.forwarding.underlay.local_end import LocalEnd
from overlay.reasons import Drops
from overlay.wire.addresses import pack_host

if TYPE_CHECKING:
    from overlay.encap.encapsulation import Encapsulation
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.path.search import PathMtu
    from overlay.forwarding.ratelimit import Bucket
    from overlay.forwarding.table import Prefixes
    from overlay.wire.addresses import Sockaddr

# Ours
_NO_PREFIX: dict[int, bytes] = {4: b"", 6: b""}
WIDE = 1 << 17  # as a path MTU: nothing that the tun carries is larger, super-packets included


@dataclass(eq=False, slots=True)
class Traffic:
    """What went to a peer and came from it: bytes of datagrams, packets, and bulk units."""

    tx_bytes: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    rx_packets: int = 0
    tx_units: int = 0
    rx_units: int = 0


@dataclass(eq=False, slots=True)
class Path:
    """What is known of the path to a peer."""

    mtu: int = WIDE  # the largest packet that reaches it; WIDE where that is the tun's MTU
    search: PathMtu | None = None  # by probes, once there was one
    packets: int = 0  # that were for the peer when the search looked last
    due: float = 0.0  # when the kernel is to be asked for it
    is_known: bool = False  # the kernel has told it
    omits: bool = False  # the kernel's word for it does not count: probes tell


@dataclass(eq=False, slots=True)
class Contact:
    """When there was contact with a peer, and what is to follow from that.

    Times are seconds of CLOCK_BOOTTIME; 0 is "nothing outstanding", or never.
    """

    unanswered_since: float = 0.0  # data was sent and nothing has been received since
    owed_since: float = 0.0  # data was received and nothing has been sent since
    last_traffic: float = -math.inf  # authenticated, either way
    last_received: float = 0.0
    wanted_at: float = 0.0  # when the agent was last asked for a session
    keepalive: float = 0.0  # seconds; 0 is off
    is_silent: bool = False  # not answered in the time that the protocol gives, as the agent was told
    is_unreachable: bool = False  # given up; the next handshake completed ends it
    reporting: Keypair[Peer] | None = None  # units came under it and are to be reported
    messages: Bucket | None = None  # permits for in-band control messages, once one came
    for_agent: Bucket | None = None  # and for those of them that the agent is told of
    moves: Moves = field(default_factory=Moves)


@dataclass(eq=False, slots=True)
class Unsealed:
    """What is known of packets that come from a peer in the clear."""

    sources: Prefixes[bool] | None = None  # beside its own, from where it may send
    sequence: int | None = None  # the last number of a numbered packet, and when it came
    sequence_at: float = 0.0
    # Without ports: of super-packets that a kernel made of its packets, and that do not say so
    segment_limit: int = WIDE  # the largest packet that goes on from here, as an ICMP error told
    segment_limit_ends: float = 0.0  # when that is to be forgotten
    segment_size: int = 0  # of the last that told


class TunnelHeader:
    """What stands before the packets of a tunnel with *ends*: nothing of its own where they are sealed."""

    __slots__ = ("ends", "finish", "frame_header", "prefix")

    def __init__(self, encapsulation: Encapsulation, ends: Ends) -> None:
        clear, self.ends = encapsulation.clear, ends
        frames = clear.frames if clear is not None else None
        self.prefix = clear.prefix(ends) if clear is not None else _NO_PREFIX
        self.finish = clear.finisher(ends) if clear is not None else None
        self.frame_header = frames.header(ends) if frames is not None else b""

    def payload(self, packet: bytes) -> bytes:
        """Return the payload in the clear that carries *packet* by itself."""
        made = self.prefix[packet[0] >> 4] + packet
        if self.finish is None:
            return made
        unfinished = bytearray(made)
        self.finish(memoryview(unfinished))
        return bytes(unfinished)


class Peer(FlowQueue["Peer"]):
    """All that the packet path asks of a peer, as plain attributes."""

    __slots__ = (
        "asking", "clear", "contact", "drops", "encapsulation", "endpoint", "keypairs", "lanes", "local", "number",
        "path", "place", "timers", "traffic", "tunnel", "unsealed",
    )  # fmt: skip

    def __init__(self, number: int, encapsulation: Encapsulation = wireguard.ENCAPSULATION) -> None:
        super().__init__(encapsulation.has_ports)
        self.number = number
        self.encapsulation = encapsulation
        # None where what is sent is sealed; a peer in the clear has no keypairs
        self.clear = encapsulation.clear
        self.tunnel = TunnelHeader(encapsulation, Ends())
        # One for each port that is sent from; none where there is but one, and the peer is the lane
        self.lanes = [FurtherFlow(self, flow) for flow in range(encapsulation.senders)]
        self.keypairs: Keypairs[Peer] = Keypairs()
        self.asking = Asking()
        self.endpoint: Sockaddr | None = None
        self.place = b"", b""  # its address and port, packed, to recognise our own datagrams in the tun
        self.local, self.path, self.contact = LocalEnd(), Path(), Contact()
        self.unsealed, self.traffic, self.drops = Unsealed(), Traffic(), Drops()
        self.timers: dict[str, int] = {}  # the entry in force in the heap, for each kind that has one

    @property
    def peer(self) -> Peer:
        """Itself, as the one whom the datagrams of its first lane go to."""
        return self

    def set_ends(self, ends: Ends) -> None:
        """Make and take payloads of a tunnel with *ends* from now on."""
        if ends != self.tunnel.ends:  # or sequence numbers would begin anew
            self.tunnel = TunnelHeader(self.encapsulation, ends)

    def move(self, endpoint: Sockaddr) -> None:
        """Send to *endpoint* from now on, from whatever address the host's routes choose."""
        self.endpoint = endpoint
        self.place = pack_host(endpoint), endpoint[1].to_bytes(2, "big")
        self.asking.again()
        self.local.forget_source()
