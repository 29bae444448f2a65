"""What the packet path may call: the state that it reads, and its reports to the rest of the forwarder.

Core implements it.  The outbound and inbound paths know only this much of it, and do not import Core.  Times are
seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from overlay.forwarding.batch import Batch
    from overlay.forwarding.captures import Captures
    from overlay.forwarding.in_band import InBand
    from overlay.forwarding.indices import ReceiverIndices
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.liveness import Liveness
    from overlay.forwarding.owners import Owners
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.places import Places
    from overlay.forwarding.services.commands import Services
    from overlay.forwarding.underlay.received import Received
    from overlay.forwarding.underlay.sender import Sender
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.forwarding.unreachable import Unreachable
    from overlay.forwarding.workqueue import Workqueue
    from overlay.link.messages import SetNode
    from overlay.reasons import Drops
    from overlay.wire.addresses import Sockaddr
    from overlay.wire.ip import Buffer


class Upcalls(Protocol):
    """The forwarder, as the packet path sees it."""

    peers: dict[int, LivePeer]
    by_index: ReceiverIndices
    table: Owners
    places: Places
    node: SetNode
    drops: Drops
    sender: Sender
    unreachable: Unreachable
    in_band: InBand
    liveness: Liveness
    jobs: Workqueue
    services: Services
    captures: Captures

    @property
    def outbound(self) -> Batch:
        """What seals and sends."""

    def refuse(self, packet: Buffer, reason: str, now: float) -> None:
        """Drop a packet of the tun that no peer takes, and tell its sender."""

    def refused(
        self,
        peer: LivePeer,
        reason: str,
        count: int = 1,
        packet: Buffer | None = None,
        datagram: Buffer | None = None,
    ) -> None:
        """Count *count* dropped messages from *peer*, or claiming to be from it, as Drops.add() does."""

    def cannot_reach(self, peer: LivePeer, packet: Buffer, now: float) -> None:
        """Drop a packet for a peer whose address is not known, and tell its sender."""

    def stage(self, peer: LivePeer, packet: bytes, now: float) -> None:
        """Keep *packet*, with its virtio header, until there is a session with *peer*."""

    def authenticated(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        """Note that a message under *keypair* was genuine and new."""

    def moved(self, peer: LivePeer, udp: UdpSocket, source: Sockaddr, now: float) -> bool:
        """Note that *peer* was heard from *source*, authenticated, through *udp*; return whether it is there now."""

    def owns(self, peer: LivePeer, packet: Buffer) -> bool:
        """Return whether the source address of *packet* is one of *peer*'s."""

    def is_from(self, peer: LivePeer, packet: Buffer) -> bool:
        """Return whether *peer* may send *packet*: its source is one of its own, or a service permits it."""

    def handshake_received(self, kind: int, datagram: bytes, received: Received) -> None:
        """Let a handshake message through to the agent, answer it with a cookie, or drop it."""
