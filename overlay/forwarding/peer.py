"""A peer as the forwarder knows it: where it is, its keypairs, and its counters; what belongs together is one part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.encap import wireguard
from overlay.encap.encapsulation import Ends
from overlay.forwarding import state
from overlay.forwarding.bulk.asking import Asking
from overlay.forwarding.keypair import Keypairs
from overlay.forwarding.moves import Moves
from overlay.forwarding.underlay.flows import FlowQueue, FurtherFlow
from overlay.forwarding.underlay.local_end import LocalEnd
from overlay.link.messages import SetPeer
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


class Traffic(state.TrafficState):
    """What was sent to a peer and received from it: bytes of datagrams, packets, and bulk units."""

    __slots__ = ()

    def __init__(self) -> None:
        self.tx_bytes = self.rx_bytes = 0
        self.tx_packets = self.rx_packets = 0
        self.tx_units = self.rx_units = 0


class PeerPath(state.PathState):
    """What is known about the path to a peer."""

    __slots__ = ("is_known", "packets", "search")

    def __init__(self) -> None:
        self.mtu = WIDE  # the largest packet that reaches it; WIDE if that is the tun's MTU
        self.search: PathMtu | None = None  # by probes, once there was one
        self.packets = 0  # that were for the peer when the search looked last
        self.due = 0.0  # when the kernel should be asked for it
        self.is_known = False  # the kernel has reported it
        self.omits = False  # the kernel's value does not count: probes find it


class Contact(state.ContactState):
    """When there was contact with a peer, and the pending consequences.

    Times are seconds of CLOCK_BOOTTIME; 0 is "nothing outstanding", or never.
    """

    __slots__ = ("for_agent", "is_unreachable", "messages", "moves")

    reporting: Keypair[LivePeer] | None

    def __init__(self) -> None:
        self.unanswered_since = 0.0  # data was sent and nothing has been received since
        self.owed_since = 0.0  # data was received and nothing has been sent since
        self.last_traffic = -math.inf  # authenticated, either way
        self.last_received = 0.0
        self.wanted_at = 0.0  # when the agent was last asked for a session
        self.armed = 0
        self.is_silent = False  # not answered in the time that the protocol allows, as the agent was told
        self.is_unreachable = False  # given up; the next handshake completed ends it
        self.reporting = None  # the keypair that units arrived under, which must be reported
        self.messages: Bucket | None = None  # permits for in-band control messages, once one came
        self.for_agent: Bucket | None = None  # and for those of them that the agent is told of
        self.moves = Moves()


class Unsealed(state.UnsealedState):
    """What is known about packets from an unencrypted peer."""

    __slots__ = ("_sources",)

    def __init__(self) -> None:
        self._sources: Prefixes[bool] | None = None
        self.sequence = -1  # the last number of a numbered packet, -1 for none, and when it came
        self.sequence_at = 0.0
        # Without ports: of super-packets that a kernel made of its packets, and that do not say so
        self.segment_limit = WIDE  # the largest packet that goes on from here, as an ICMP error told
        self.segment_limit_ends = 0.0  # when that is to be forgotten
        self.segment_size = 0  # of the last that told

    @property
    def sources(self) -> Prefixes[bool] | None:
        """Where it may send from, in addition to its own addresses."""
        return self._sources

    @sources.setter
    def sources(self, value: Prefixes[bool] | None) -> None:
        self._sources = value
        self.tell_ranges(b"", b"")


class TunnelHeader(state.TunnelState):
    """The bytes before the packets of a tunnel with *ends*: empty if they are sealed."""

    __slots__ = ("_finisher", "ends", "frame_header", "is_finished", "prefix")

    def __init__(self, encapsulation: Encapsulation, ends: Ends) -> None:
        clear, self.ends = encapsulation.clear, ends
        frames = clear.frames if clear is not None else None
        self.prefix = clear.prefix(ends) if clear is not None else _NO_PREFIX
        self._finisher = clear.finisher(ends) if clear is not None else None
        self.is_finished, self.sent = self._finisher is not None, 0  # computed: no two payloads begin alike
        self.frame_header = frames.header(ends) if frames is not None else b""
        if clear is not None:
            protocols = encapsulation.protocols
            self._stand(
                clear.layout,
                (protocols[4], protocols[6]),
                (self.prefix[4], self.prefix[6]),
                -1 if ends.identifier is None else ends.identifier,
                ends.own_mac,
                encapsulation.senders,
                ends.has_checksum,
                ends.has_sequence,
            )

    def payload(self, packet: bytes) -> bytes:
        """Return the payload in the clear that carries *packet* by itself."""
        made = bytearray(self.prefix[packet[0] >> 4] + packet)
        self.finish(memoryview(made))
        return bytes(made)

    def finish(self, payload: memoryview) -> None:
        """Write into *payload*, which begins with the prefix, the fields that differ from one to the next, and count
        it.
        """
        if self._finisher is not None:
            self._finisher(payload, self.sent)
            self.sent += 1


class LivePeer(FlowQueue["LivePeer"]):
    """Everything that the packet path needs of a peer, as plain attributes; its configuration is a ``peers.Peer``."""

    __slots__ = (
        "asking", "clear", "contact", "drops", "encapsulation", "endpoint", "keypairs", "lanes", "local", "number",
        "path", "place", "settings", "state", "timers", "traffic", "tunnel", "unsealed",
    )  # fmt: skip

    def __init__(self, number: int, encapsulation: Encapsulation = wireguard.ENCAPSULATION) -> None:
        super().__init__(encapsulation.has_ports)
        self.number = number
        self.encapsulation = encapsulation
        self.settings = SetPeer(number, 0.0, encapsulation.name)  # according to the agent's last message
        # None if payloads are sealed; an unencrypted peer has no keypairs
        self.clear = encapsulation.clear
        self.tunnel = TunnelHeader(encapsulation, Ends())
        # One for each port used for sending; empty if there is only one, and the peer is the lane
        self.lanes = [FurtherFlow(self, flow) for flow in range(encapsulation.senders)]
        self.keypairs: Keypairs[LivePeer] = Keypairs()
        self.asking = Asking()
        self.endpoint: Sockaddr | None = None
        self.place = b"", b""  # its address and port, packed, to recognise our own datagrams in the tun
        self.local, self.path, self.contact = LocalEnd(), PeerPath(), Contact()
        self.unsealed, self.traffic, self.drops = Unsealed(), Traffic(), Drops()
        self.state = self._share()
        self.timers: dict[str, int] = {}  # the entry in force in the heap, for each kind that has one

    def _share(self) -> state.PeerState:
        """Return what both packet paths know of this peer."""
        shared = state.PeerState()
        shared.number, shared.is_held = self.number, False
        shared.traffic, shared.contact, shared.path = self.traffic, self.contact, self.path
        shared.asking, shared.local, shared.keypairs = self.asking, self.local, self.keypairs
        shared.tunnel, shared.unsealed = self.tunnel, self.unsealed
        return shared

    @property
    def peer(self) -> LivePeer:
        """Itself, as the destination of the datagrams of its first lane."""
        return self

    def set_ends(self, ends: Ends) -> None:
        """Build and read payloads of a tunnel with *ends* from now on."""
        if ends != self.tunnel.ends:  # or sequence numbers would start again
            self.tunnel = self.state.tunnel = TunnelHeader(self.encapsulation, ends)

    def ask_about_probes(self) -> None:
        """Ask the peer soon whether it answers probes, now that there is a packet that may exceed its path MTU."""
        self.asking.is_worth_it, self.path.due = True, 0.0

    def move(self, endpoint: Sockaddr) -> None:
        """Send to *endpoint* from now on, from the source address that the host's routes choose."""
        self.endpoint = endpoint
        self.place = pack_host(endpoint), endpoint[1].to_bytes(2, "big")
        self.state.move(self.place[0], *endpoint[1:])
        self.asking.again()
        self.local.forget_source()
