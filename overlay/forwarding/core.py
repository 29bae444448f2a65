"""The forwarder without its loop: what it knows, and what the packet path may call of it (``upcalls``).

It computes and calls: sockets, tun and clock are passed in, so that a test can run it on a network in memory.
``commands`` carries out the agent's commands, and ``liveness`` what follows from traffic and timers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.forwarding.admission import Admission
from overlay.forwarding.captures import Captures
from overlay.forwarding.compiled import Compiled
from overlay.forwarding.ethernet.bridge import Bridge
from overlay.forwarding.ethernet.compiled import CompiledFrames
from overlay.forwarding.ethernet.inbound import FramesInbound
from overlay.forwarding.ethernet.outbound import FramesOutbound
from overlay.forwarding.in_band import InBand
from overlay.forwarding.indices import ReceiverIndices
from overlay.forwarding.lane.keypairs import LaneKeypairs
from overlay.forwarding.liveness import Liveness
from overlay.forwarding.owners import Owners
from overlay.forwarding.path.kernel import KernelPaths
from overlay.forwarding.path.probes import Probes
from overlay.forwarding.path.sources import PathMtuSources
from overlay.forwarding.pings import Pings
from overlay.forwarding.places import Places
from overlay.forwarding.services.commands import Services
from overlay.forwarding.staging import Staging
from overlay.forwarding.timers import Timers
from overlay.forwarding.tun.inbound import Inbound, TunWriter
from overlay.forwarding.tun.outbound import Outbound
from overlay.forwarding.underlay.kernel_drops import count_kernel_drops
from overlay.forwarding.underlay.replaced import read_out
from overlay.forwarding.underlay.sender import Sender
from overlay.forwarding.unreachable import Silent, Unreachable
from overlay.forwarding.workqueue import Workqueue, always
from overlay.link.messages import Confirmed, Handshake, Report, Retired, SetNode, Start
from overlay.reasons import Drops
from overlay.session.constants import Timing
from overlay.wire.frames import FRAME_OVERHEAD
from overlay.wire.ip import ADDRESS_V4, ADDRESS_V6, MAXIMUM_IP
from overlay.wire.virtio import PLAIN, VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.received import Received
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.wire.addresses import Sockaddr
    from overlay.wire.ip import Buffer


class Core:
    """A forwarder's state.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self,
        start: Start,
        tun: TunWriter,
        *,
        report: Callable[[Report], bool],
        entropy: Callable[[int], bytes],
    ) -> None:
        """*report* passes a report to the agent, and returns whether the link accepted it."""
        timing = Timing(*start.times)
        self.table = Owners()
        self.peers: dict[int, LivePeer] = {}
        self.by_index = ReceiverIndices()
        self.drops = Drops()
        self.places = Places()
        self.sender = Sender(start.segments_udp)
        self.bridge = Bridge(self.table.number_of, crowded=self._crowded) if start.is_tap else None
        mtu = self.payload_mtu(start.mtu)
        self.outbound, self.inbound = self._ways(start, tun, mtu)
        self.unreachable = Unreachable(tun.write) if self.bridge is None else Silent(tun.write)
        self.jobs = Workqueue()
        self.staging = Staging()
        self.admission = Admission(start.public_key, entropy)
        pings, probes = Pings(entropy), Probes(timing, mtu)
        paths = KernelPaths(mtu, 0 if self.bridge is None else FRAME_OVERHEAD)
        self._link_takes = report
        self.node = SetNode(start.mtu, False, [])  # according to the agent's last message
        self.services = Services(
            self.peers,
            self.table.own,
            self.jobs,
            self.drops,
            write=tun.write,
            resend=self._resend,
            report=self.report,
            send=self.outbound.send_payload,
        )
        self.unreachable.is_virtual = self.services.is_virtual
        batch, by_index, timers = self.outbound, self.by_index, Timers()
        self.captures = Captures(self.drops, self.peers, self.inbound.received, self.jobs.add_once)
        self.lanes = LaneKeypairs(by_index, timers, timing, send=batch.send_by_lane, forget=self._forget)
        self.liveness = Liveness(
            timing,
            PathMtuSources(probes, paths),
            batch,
            by_index,
            timers,
            self.lanes,
            report=self.report,
            entropy=entropy,
        )
        self.in_band = InBand(
            pings, probes, timers, self.report, batch.send_payload, self.services.told, self.lanes
        )

    def _ways(self, start: Start, tun: TunWriter, mtu: int) -> tuple[Outbound, Inbound]:
        """Return the outbound and the inbound path of a tun or a tap."""
        takes_units = bool(start.ciphers)
        if self.bridge is None:
            return Outbound(self, mtu), Inbound(self, tun, start.joins_udp, takes_units)
        inbound = FramesInbound(self, tun, start.joins_udp, takes_units, self.bridge)
        return FramesOutbound(self, mtu, tun, self.bridge), inbound

    @property
    def is_compiled(self) -> bool:
        """Whether packets take the compiled path."""
        return self.inbound.compiled is not None

    def compile(self, native: ModuleType, tun: tuple[int, int], seed: int) -> Compiled:
        """Process packets of the descriptors *tun*, to read and to write, with the compiled twin from now on.

        *seed* is for its table of routes: 64 secret bits.
        """
        lane = native.Lane(
            self.outbound.arena,
            self.inbound.received.buffer,
            self.inbound.units.unit,
            self.outbound.pace,
            seed,
        )
        ways = self.outbound, self.inbound
        if self.bridge is None:
            compiled = Compiled(lane, self, *ways, tun)
        else:
            compiled = CompiledFrames(lane, self, *ways, tun, self.bridge)
        self.by_index.lane = lane
        self.outbound.compiled = self.inbound.compiled = compiled
        self.inbound.clear.locator = self.services.shortcuts.lane = lane
        return compiled

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return min(self.liveness.timers.next_deadline(), self.sender.closes_at, self.services.next_deadline())

    def handle_deadline(self, now: float, has_time: Callable[[], bool] = always) -> list[UdpSocket]:
        """Do what is due until *has_time* returns false, and return the replaced sockets whose time is over, to be
        closed.
        """
        for peer, kind in self.liveness.timers.due(now):
            self.liveness.turn(peer, kind, now)
            if not has_time():
                break
        self.services.handle_deadline(now)
        closed = [udp for udp in self.sender.sockets if udp.closes_at <= now]
        count_kernel_drops(self.drops, closed)
        for udp in closed:
            read_out(self.inbound, udp, now)
            self.sender.leave(udp)
        return closed

    # Called by the packet path

    def refuse(self, packet: Buffer, reason: str, now: float) -> None:
        """Drop a packet of the tun that no peer takes, and tell its sender."""
        self.drops.add(reason, 1, packet)
        self.unreachable.tell(packet, now)

    def refused(
        self,
        peer: LivePeer,
        reason: str,
        count: int = 1,
        packet: Buffer | None = None,
        datagram: Buffer | None = None,
    ) -> None:
        """Count *count* dropped messages from *peer*, or claiming to be from it, as Drops.add() does."""
        peer.drops.add(reason, count, packet, datagram)

    def cannot_reach(self, peer: LivePeer, packet: Buffer, now: float) -> None:
        """Drop a packet for a peer whose address is not known, and tell its sender."""
        peer.drops.add("no_endpoint", 1, packet)
        self.unreachable.tell(packet, now)

    def stage(self, peer: LivePeer, packet: bytes, now: float) -> None:
        """Keep *packet*, with its virtio header, until there is a session with *peer*."""
        if self.peers.get(peer.number) is not peer:  # removed, and the routes that follow not yet in force
            self.refuse(packet[VIRTIO_SIZE:], "no_peer", now)
            return
        if peer.endpoint is None:
            self.cannot_reach(peer, packet[VIRTIO_SIZE:], now)
            return
        if peer.contact.is_unreachable:
            self.unreachable.tell(packet[VIRTIO_SIZE:], now)
        for owner, dropped in self.staging.add(peer.number, packet):
            self.peers[owner].drops.add("staging_full", 1, memoryview(dropped)[VIRTIO_SIZE:])
        self.liveness.want(peer, now)

    def authenticated(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        """Note that a message under *keypair* was genuine and new."""
        contact, keypairs = peer.contact, peer.keypairs
        contact.unanswered_since = 0.0
        contact.last_traffic = now
        if contact.is_silent:
            self.liveness.end_silence(peer)
        if keypair is keypairs.next and not keypairs.keeps_next_waiting(now):
            self.retire(keypairs.promote())
            contact.is_unreachable = False
            self.report(Confirmed(peer.number, keypair.local_index))
            self.send_staged(peer, now)
        elif keypair is keypairs.previous:
            keypairs.follow(keypair, now)
        keypairs.heard = keypair
        if keypairs.settled is not keypair:  # the last one heard is one under that
            keypairs.settled = keypair if keypairs.has_settled(keypair, now) else None
        current = keypairs.current
        if current is not None and now >= current.rekey_receive_at:
            current.rekey_receive_at = math.inf  # once is enough
            self.liveness.want(peer, now)

    def moved(self, peer: LivePeer, udp: UdpSocket, source: Sockaddr, now: float) -> bool:
        """Note that *peer* was heard from *source*, authenticated, through *udp*; return whether it is there now."""
        if peer.contact.moves.is_late(source, now):
            return False
        udp = udp.sends_by
        if udp.closes_at == math.inf:
            peer.local.socket = udp
        if source != peer.endpoint:
            if peer.local.socket is not udp:
                peer.local.socket = None  # it may be of the other family
            before = peer.endpoint
            self.places.move(peer, source)
            if peer.contact.moves.moved(before, now):
                self.liveness.look_at_moves(peer, now)
        return True

    def owns(self, peer: LivePeer, packet: Buffer) -> bool:
        """Return whether the source address of *packet* is one of *peer*'s."""
        (source,) = ADDRESS_V4(packet, 12) if packet[0] >> 4 == 4 else ADDRESS_V6(packet, 8)
        remembered = self.table.remembered
        owner = remembered[source] if source in remembered else self.table.find(source)
        return owner is peer

    def is_from(self, peer: LivePeer, packet: Buffer) -> bool:
        """Return whether *peer* may send *packet*: its source is one of its own, or a service permits it."""
        (source,) = ADDRESS_V4(packet, 12) if packet[0] >> 4 == 4 else ADDRESS_V6(packet, 8)
        remembered = self.table.remembered
        owner = remembered[source] if source in remembered else self.table.find(source)
        return owner is peer or self.services.permits.admits(peer, packet)

    def handshake_received(self, kind: int, datagram: bytes, received: Received) -> None:
        """Pass a handshake message to the agent, answer it with a cookie, or drop it."""
        udp, source, arrival = received.udp, received.source, received.arrival
        admitted, reply = self.admission.admit(kind, datagram, source, received.now, self.drops)
        if reply is not None:
            self.sender.answer(udp, reply, source, arrival.source)
        if not admitted:
            return
        self.admission.callers.remember(source, udp, arrival)
        if not self.report(Handshake(datagram, source)):
            self.admission.not_taken()

    # Helpers

    def payload_mtu(self, mtu: int) -> int:
        """Return the limit of a payload if the device's MTU is *mtu*: for packets as they are, or for frames."""
        return mtu if self.bridge is None else min(mtu + FRAME_OVERHEAD, MAXIMUM_IP)

    def _crowded(self, owner: int) -> None:
        """Count an Ethernet address at *owner* that had to be forgotten for another: frames for it are flooded."""
        peer = self.peers.get(owner)
        (self.drops if peer is None else peer.drops)["stations_full"] += 1

    def send_staged(self, peer: LivePeer, now: float) -> None:
        """Send what waited for a session with *peer*."""
        packets = self.staging.take(peer.number)
        if packets:
            self.outbound.send_staged(peer, packets, now)

    def _resend(self, packets: list[bytes]) -> None:
        """Send the packets that were held, once the batch under way has left."""

        def send(packets: list[bytes], now: float) -> None:
            self.outbound.send_staged(self.table.own, packets, now)

        self.jobs.add("held", [[PLAIN + packet for packet in packets]], send)

    def report(self, report: Report) -> bool:
        """Report to the agent and return whether the link accepted it; if the link is full, the report is dropped and
        counted.
        """
        is_taken = self._link_takes(report)
        if not is_taken:
            self.drops.add("link_full")
        return is_taken

    def move(self, peer: LivePeer, endpoint: Sockaddr, now: float) -> None:
        """Send to *peer* at *endpoint* from now on, as the agent says."""
        if endpoint != peer.endpoint:
            if peer.endpoint and len(peer.endpoint) != len(endpoint):
                peer.local.socket = None
                peer.local.forget_senders()
            if peer.clear is not None:
                self.inbound.clear.move(peer, endpoint)
            before = peer.endpoint
            self.places.move(peer, endpoint)
            if peer.contact.moves.moved(before, now, is_known=True):
                self.liveness.look_at_moves(peer, now)

    def retire(self, keypairs: list[Keypair[LivePeer]]) -> None:
        """Forget *keypairs* and their lanes, and make the agent forget their indices."""
        for keypair in keypairs:
            for each in keypair.all():
                self._forget(each)
            keypair.end_lanes()
            self.report(Retired(keypair.local_index))

    def _forget(self, keypair: Keypair[LivePeer]) -> None:
        del self.by_index[keypair.local_index]
        self.inbound.units.forget_keypair(keypair.local_index)
