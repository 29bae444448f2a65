"""Drains of a tap by the compiled twin, which is told what the bridge knows of stations.

See ``native/ethernet_outbound.c``.
The twin asks the bridge nothing: it remembers where an Ethernet address is once Python has dealt with a frame from
there or for there, and for how long that holds it sees in the bridge's own entry.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from overlay.errors import PacketError
from overlay.forwarding.bulk.units import LEAD
from overlay.forwarding.compiled import Compiled
from overlay.forwarding.offload.flow import HEADER_SIZE
from overlay.link.messages import OWN
from overlay.wire.ethernet import ETHERNET_SIZE
from overlay.wire.frames import FRAME_HEADER_SIZE, is_frame

if TYPE_CHECKING:
    from overlay.forwarding.ethernet.bridge import Bridge
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.tun.inbound import Inbound
    from overlay.forwarding.tun.outbound import Outbound
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.forwarding.upcalls import Upcalls


class CompiledFrames(Compiled):
    """The twin at work where the device is a tap."""

    def __init__(
        self,
        lane: Any,
        core: Upcalls,
        outbound: Outbound,
        inbound: Inbound,
        tap: tuple[int, int],
        bridge: Bridge,
    ) -> None:
        super().__init__(lane, core, outbound, inbound, tap)
        self._bridge = bridge
        self._own_ports: dict[str, frozenset[bytes]] | None = None
        bridge.changed = lane.forget

    def settle(self) -> None:
        """Pass the settings to the twin, and the ports whose datagrams may be this node's."""
        super().settle()
        own_ports = self._core.places.own_ports
        if own_ports is not self._own_ports:
            self._own_ports = own_ports
            self.lane.carry_frames(b"".join(frozenset().union(*own_ports.values())))

    def _head(self, at: int, size: int) -> bytes:  # noqa: ARG002
        """Return the Ethernet header of the frame in the arena that a read has put *at*, before it is sealed."""
        start = at + HEADER_SIZE + FRAME_HEADER_SIZE
        return bytes(self._outbound.arena[start : start + ETHERNET_SIZE])

    def _remember(self, packet: bytes) -> None:
        """Tell the twin both stations of the Ethernet header *packet*."""
        self._remember_station(packet[:6])
        self._remember_station(packet[6:12])

    def _remember_source(self, peer: LivePeer, packet: memoryview) -> None:  # noqa: ARG002
        """Tell the twin the sender of the frame in the payload *packet*, if it is one."""
        if is_frame(packet):
            source = FRAME_HEADER_SIZE + 6
            self._remember_station(bytes(packet[source : source + 6]))

    def _remember_sender(self, udp: UdpSocket, payload: memoryview) -> None:
        """Tell the twin the sender of the frame in *payload*, in the clear, if there is one."""
        if udp.clear is None or udp.clear.frames is None:
            return
        with contextlib.suppress(PacketError):
            source = udp.clear.frames.find(payload)[0] + 6
            self._remember_station(bytes(payload[source : source + 6]))

    def _take_unit(self, keypair: Keypair[LivePeer], size: int, ecn: int, now: float) -> None:
        """Deliver the unit that the twin has opened, and tell it the sender."""
        assert keypair.bulk is not None
        unit = self._inbound.units.unit_view[:size]
        link = bytes(unit[size - unit[LEAD + 1] :])
        self._inbound.deliver_unit(keypair.peer, unit, keypair.bulk.told_packet, ecn, now)
        self._remember_station(link[6:12])

    def _remember_station(self, mac: bytes) -> None:
        owner, station = self._bridge.known(mac)
        peer = None if owner is None else self._core.peers.get(owner)
        if owner == OWN or peer is not None:
            self.lane.remember_station(mac, None if peer is None else peer.state, station)
