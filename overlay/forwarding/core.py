"""The forwarder without its loop: what it knows, and what it does when the agent, a timer or a packet says so.

It computes and calls: sockets, tun and clock are handed to it, so a test runs it on a network in memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, assert_never

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import PROTOCOL_UDP, Ends, Role
from overlay.forwarding import counters
from overlay.forwarding.bridge import Bridge
from overlay.forwarding.bulk import REPORT_TIME
from overlay.forwarding.callers import Callers
from overlay.forwarding.frames_inbound import FramesInbound
from overlay.forwarding.frames_outbound import FramesOutbound
from overlay.forwarding.gate import Gate
from overlay.forwarding.in_band import InBand
from overlay.forwarding.inbound import Inbound, TunWriter
from overlay.forwarding.kernel_drops import KernelDrops
from overlay.forwarding.kernel_paths import KernelPaths, PathSocket
from overlay.forwarding.keypair import Keypair
from overlay.forwarding.mmsg import RawCarrier
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.peer import WIDE, Peer
from overlay.forwarding.pings import Pings
from overlay.forwarding.places import Places
from overlay.forwarding.probes import Probes
from overlay.forwarding.replaced import read_out
from overlay.forwarding.segments import MAXIMUM_IP
from overlay.forwarding.sender import Sender
from overlay.forwarding.staging import Staging
from overlay.forwarding.table import Prefixes, Table
from overlay.forwarding.timers import Slots, Timers
from overlay.forwarding.udp_socket import DatagramSocket, UdpSocket, pair
from overlay.forwarding.unreachable import RawIcmp, Silent, Unreachable
from overlay.forwarding.workqueue import Workqueue, always
from overlay.host.queues import KernelSocket, SocketQueues
from overlay.link import (
    OWN,
    REPLACED_TIME,
    AskCounters,
    Begin,
    Command,
    Confirmed,
    Counters,
    Handled,
    Handshake,
    Moved,
    PingPeer,
    Ponged,
    RemovePeer,
    RenewSources,
    Report,
    Retired,
    Routes,
    SetEndpoint,
    SetNode,
    SetPeer,
    Silence,
    Sockets,
    Start,
    Wanted,
)
from overlay.reasons import Drops
from overlay.session.constants import GREETINGS_PER_SECOND, REKEY_AFTER_MESSAGES, Timing
from overlay.session.outputs import GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.frames import FRAME_OVERHEAD
from overlay.wire.messages import INITIATION, RESPONSE
from overlay.wire.virtio import VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.forwarding.arrival import Arrival
    from overlay.forwarding.bulk import Bulk
    from overlay.forwarding.mmsg import Carrier
    from overlay.forwarding.shares import SendQueue
    from overlay.wire.addresses import Sockaddr
    from overlay.wire.ip import Buffer

# Ours
WANTED_INTERVAL = 1.0  # seconds between two requests for the same session; the agent knows when to retry


class AnySocket(DatagramSocket, KernelSocket, RawIcmp, PathSocket, Protocol):
    """What came as a descriptor: the message beside it says what it is."""


class Core:
    """A forwarder's state.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self,
        start: Start,
        tun: TunWriter,
        *,
        report: Callable[[Report], bool],
        entropy: Callable[[int], bytes],
        carrier: Callable[[int, int], Carrier] = RawCarrier,
        queues: Callable[[AnySocket], SendQueue] = SocketQueues,
        link_is_idle: Callable[[], bool] = always,
    ) -> None:
        """*report* tells the agent, and *link_is_idle* whether it has read all that it was told."""
        self.timing = Timing(*start.times)
        self._ciphers = start.ciphers
        self.table: Table[Peer] = Table()
        self.peers: dict[int, Peer] = {}
        self.by_index: dict[int, Keypair[Peer]] = {}
        self.drops = Drops()
        self.own_ports: dict[str, frozenset[bytes]] = {}  # by encapsulation
        self.places = Places()
        self.sender = Sender(start.segments_udp)
        self._bridge = Bridge(self._owner_of, crowded=self._crowded) if start.is_tap else None
        mtu = self._payload_mtu(start.mtu)
        self.outbound: Outbound
        self.inbound: Inbound
        if self._bridge is None:
            self.outbound = Outbound(self, mtu)
            self.inbound = Inbound(self, tun, start.joins_udp, bool(start.ciphers))
            self.unreachable = Unreachable(tun.write)
        else:
            self.outbound = FramesOutbound(self, mtu, tun, self._bridge)
            self.inbound = FramesInbound(self, tun, start.joins_udp, bool(start.ciphers), self._bridge)
            self.unreachable = Silent(tun.write)
        self.timers, self.jobs = Timers(), Workqueue()
        self._greetings = Slots(GREETINGS_PER_SECOND)
        self._own = Peer(OWN)
        self._staging = Staging()
        self._gate = Gate(start.public_key, entropy)
        self._pings = Pings(entropy)
        self._probes = Probes(self.timing, mtu)
        self.in_band = InBand(
            self._pings, self._probes, self.timers, self._report, self.outbound.send_payload
        )
        self._kernel_paths = KernelPaths(mtu, 0 if self._bridge is None else FRAME_OVERHEAD)
        self._learns_mtus = False
        self._kernel_drops = KernelDrops()
        self._closes_at = math.inf  # when the next replaced socket does
        self._callers = Callers()
        self._link_takes, self._link_is_idle = report, link_is_idle
        self._entropy = entropy
        self._carrier, self._queues = carrier, queues
        self.inherits_ttl = False

    # What the agent says

    def handle(self, command: Command, sockets: Sequence[AnySocket], now: float) -> None:
        """Carry out one message of the agent; *sockets* came beside it."""
        match command:
            case Transmit():
                self._transmit(command, now)
            case InstallKeypair():
                self._install(command, now)
            case Wipe():
                if command.peer in self.peers:
                    self._retire(self.peers[command.peer].keypairs.clear())
            case GiveUp():
                self._give_up(command.peer, now)
            case Handled():
                self._gate.handled(command.count)
            case SetPeer():
                self._set_peer(command, now)
            case RemovePeer():
                self._remove_peer(command.peer)
            case SetEndpoint():
                if command.peer in self.peers:
                    self._set_endpoint(self.peers[command.peer], command.endpoint, now)
            case Routes():
                self._change_routes(command)
            case Sockets():
                self._use_sockets(command, sockets, now)
            case SetNode():
                self._use_node(command, sockets)
                self.inherits_ttl = command.inherits_ttl
                if self._bridge is not None:
                    self._bridge.set_static(OWN, command.macs, command.addresses)
                    self._bridge.set_most(command.stations)
                mtu = self._payload_mtu(command.mtu)
                if mtu != self.outbound.splitter.mtu:
                    self.outbound.set_mtu(mtu)
                    self._probes.set_mtu(mtu)
                    self.jobs.add_once("mtu", list(self.peers.values()), self._probes.restart)
            case RenewSources():
                self.jobs.add_once("sources", list(self.peers.values()), self._renew_source)
                if command.has_moved:
                    self.jobs.add_once("moved", list(self.peers.values()), self._show_move)
            case AskCounters():
                self._tell_counters(command.serial)
            case PingPeer():
                self._ping(command, now)
            case Begin():
                pass  # the loop's matter
            case Start():
                self.drops["link"] += 1  # said once, before there is a core
            case _:
                assert_never(command)

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return min(self.timers.next_deadline(), self._closes_at)

    def handle_deadline(self, now: float, has_time: Callable[[], bool] = always) -> list[UdpSocket]:
        """Do what is due until *has_time* says no, and return the replaced sockets whose time is over, to be closed."""
        for peer, kind in self.timers.due(now):
            self._timer(peer, kind, now)
            if not has_time():
                break
        closed = [udp for udp in self.sender.sockets if udp.closes_at <= now]
        self._kernel_drops.close(self.drops, closed)
        for udp in closed:
            read_out(self.inbound, udp, now)
            self.sender.leave(udp)
        if closed:
            self._closes_at = min((udp.closes_at for udp in self.sender.sockets), default=math.inf)
        return closed

    def _transmit(self, command: Transmit, now: float) -> None:
        peer = self.peers.get(command.peer)
        if peer is None:
            return
        self._gate.sent(command.datagram, now)
        if command.renew_source:
            peer.forget_source()
        if command.endpoint is None:
            self.sender.send_message(peer, command.datagram)
            return
        caller = self._callers.find(command.endpoint, self.sender.sockets)
        if caller is None:
            peer.drops["no_endpoint"] += 1
        elif self.sender.answer(caller.udp, command.datagram, command.endpoint, caller.source):
            peer.tx_bytes += len(command.datagram)

    def _install(self, made: InstallKeypair, now: float) -> None:
        peer = self.peers.get(made.peer)
        if peer is None or peer.clear is not None or made.local_index in self.by_index:
            self._report(Retired(made.local_index))
            return
        keypair = Keypair(peer, made, self.timing, self._ciphers, self.outbound.splitter.mtu)
        current = peer.keypairs.current
        if keypair.bulk is not None and current is not None and current.bulk is not None:
            keypair.bulk.size = current.bulk.size.successor()
        self._retire(peer.keypairs.install(keypair))
        self.by_index[made.local_index] = keypair
        peer.rx_bytes += RESPONSE.size if made.is_initiator else INITIATION.size
        peer.last_received = peer.last_traffic = now
        peer.unanswered_since = 0.0
        self._set_endpoint(peer, made.endpoint, now)
        caller = self._callers.find(made.endpoint, self.sender.sockets)
        if caller is not None:
            peer.socket = caller.udp
            peer.answer_from(caller.source, caller.pktinfo)
        if made.is_initiator:
            peer.is_unreachable = False
            self._end_silence(peer)
            self._send_staged(peer, now)
            if self._bridge is not None:
                self.outbound.offer(peer, keypair, now)
            if not keypair.counter:
                self._send_keepalive(peer, now)  # tells the responder that it may use the keypair

    def _give_up(self, number: int, now: float) -> None:
        peer = self.peers.get(number)
        if peer is None:
            return
        peer.is_unreachable = True
        for packet in self._staging.take(number):
            peer.drops["given_up"] += 1
            self.unreachable.tell(packet[VIRTIO_SIZE:], now)

    def _set_peer(self, command: SetPeer, now: float) -> None:
        peer, encapsulation = self.peers.get(command.peer), ENCAPSULATIONS.get(command.encapsulation)
        clear, identifier = (
            encapsulation.clear if encapsulation is not None else None,
            command.identifier or 0,
        )
        if (
            encapsulation is None
            or (peer is not None and peer.encapsulation is not encapsulation)
            or (clear is not None and identifier > clear.largest_identifier)
        ):
            self.drops["link"] += 1
            return
        if peer is None:
            peer = self.peers[command.peer] = Peer(command.peer, encapsulation)
        has = command.has_checksum, command.has_sequence
        peer.set_ends(Ends(command.identifier, command.own_mac, command.mac, *has))
        if self._bridge is not None:
            self._bridge.set_static(command.peer, command.macs, command.addresses)
        peer.sources = Prefixes() if command.sources else None
        if peer.sources is not None:
            for packed, length in command.sources:
                peer.sources.insert(packed, length, True)
        if peer.keepalive != command.keepalive:
            peer.keepalive = command.keepalive
            is_paced = peer.keepalive > 0 and self._usable(peer, now) is None  # it will take a handshake
            self.timers.rearm(self._greetings.next(now) if is_paced else now, peer, "keepalive")

    def _remove_peer(self, number: int) -> None:
        peer = self.peers.pop(number, None)
        if peer is None:
            return
        self._retire(peer.keypairs.clear())
        self._staging.take(number)
        self.places.leave(peer)
        self.timers.forget(peer)
        self.sender.forget(peer)
        if self._bridge is not None:
            self._bridge.forget(number)
        if peer.clear is not None:
            self.inbound.clear.move(peer, None)

    def _leave_old_socket(self, peer: Peer, now: float) -> None:
        """Send to *peer* from the sockets that are used now, unless it was heard there already, and let it know."""
        if peer.socket is not None and peer.socket.closes_at == math.inf and not peer.senders:
            return
        peer.forget_source()
        peer.socket, peer.senders = None, {}
        if self._usable(peer, now) is not None:
            self._send_keepalive(peer, now)

    def _show_move(self, peer: Peer, now: float) -> None:
        """Let *peer*, if there is a session, know where this host is now."""
        if peer.endpoint is not None and self._usable(peer, now) is not None:
            peer.forget_source()
            self._send_keepalive(peer, now)

    def _renew_source(self, peer: Peer, now: float) -> None:
        peer.forget_source()
        self._search_path_anew(peer, now)

    def _set_endpoint(self, peer: Peer, endpoint: Sockaddr, now: float) -> None:
        if endpoint != peer.endpoint:
            if peer.endpoint and len(peer.endpoint) != len(endpoint):
                peer.socket = None
                peer.senders = {}
            if peer.clear is not None:
                self.inbound.clear.move(peer, endpoint)
            before = peer.endpoint
            self.places.move(peer, endpoint)
            if peer.moves.moved(before, now, is_known=True):
                self._look_at_moves(peer, now)

    def _change_routes(self, command: Routes) -> None:
        changes: list[tuple[bytes, int, Peer | None]] = [
            (packed, length, None) for packed, length in command.remove
        ]
        for packed, length, number in command.add:
            peer = self._own if number == OWN else self.peers.get(number)
            if peer is not None:
                changes.append((packed, length, peer))
        self.table.stage(changes)
        if command.is_last:
            self.table.commit()

    def _use_sockets(self, command: Sockets, raw: Sequence[AnySocket], now: float) -> None:
        encapsulation = ENCAPSULATIONS.get(command.encapsulation)
        families = command.families
        roles, protocols = (
            command.roles or [Role.ALL] * len(families),
            command.protocols or [PROTOCOL_UDP] * len(families),
        )
        if (
            encapsulation is None
            or not set(Role).issuperset(roles)
            or not len(raw) == len(families) == len(roles) == len(protocols)
        ):
            self.drops["link"] += 1
            return
        for udp in self.sender.sockets:
            if udp.encapsulation is encapsulation:
                # Of raw sockets each gets what arrives, so that with two every packet would come twice.
                patience = REPLACED_TIME if encapsulation.has_ports else 0.0
                udp.closes_at = min(udp.closes_at, now + patience)
        known = {udp.raw: udp for udp in self.sender.sockets}
        opened = [
            known.pop(each)  # it stays in use, or comes back to it
            if each in known
            else UdpSocket(
                each,
                family,
                encapsulation=encapsulation,
                role=Role(role),
                protocol=protocol,
                carrier=None if encapsulation.has_ports else self._carrier(each.fileno(), family),
                queue=self._queues(each),
            )
            for each, family, role, protocol in zip(raw, families, roles, protocols, strict=True)
        ]
        pair(opened)
        for udp in opened:
            udp.closes_at = math.inf
            udp.discovery.undo()
            udp.discovery.learn(self._learns_mtus)
        self.sender.use([*known.values(), *opened])
        self._closes_at = min((udp.closes_at for udp in known.values()), default=math.inf)
        own_ports = command.ports or [command.port]
        self.own_ports[encapsulation.name] = frozenset(port.to_bytes(2, "big") for port in own_ports)
        peers = [peer for peer in self.peers.values() if peer.encapsulation is encapsulation]
        self.jobs.add_once(f"sockets {encapsulation.name}", peers, self._leave_old_socket)

    def _use_node(self, command: SetNode, sockets: Sequence[AnySocket]) -> None:
        if len(sockets) != command.has_icmp + len(command.families):
            self.drops["link"] += 1
            return
        self.unreachable.send_from(command.addresses, sockets[0] if command.has_icmp else None)
        mtu = self._payload_mtu(command.mtu)
        self._kernel_paths.use(command.families, sockets[command.has_icmp :], mtu)
        self._learns_mtus = bool(command.families)
        for udp in self.sender.sockets:
            udp.discovery.learn(self._learns_mtus)
        self.jobs.add_once("paths", list(self.peers.values()), self._kernel_paths.look_soon)

    def _tell_counters(self, serial: int) -> None:
        """Tell the counters of all peers, as they are when their turn comes, as fast as the agent reads them."""
        self._kernel_drops.add_to(self.drops, self.sender.sockets)

        def tell(piece: tuple[Sequence[Peer], bool], now: float) -> None:
            mtu, bridge = self.outbound.splitter.mtu, self._bridge
            overhead = 0 if bridge is None else FRAME_OVERHEAD
            rows = [
                counters.row(peer, mtu, overhead, 0 if bridge is None else bridge.learnt(peer.number, now))
                for peer in piece[0]
            ]
            self._report(Counters(serial, rows, dict(self.drops), piece[1]))

        self.jobs.add("counters", counters.batches(list(self.peers.values())), tell, self._link_is_idle)

    def _ping(self, command: PingPeer, now: float) -> None:
        """Ping a peer that can answer; like a packet it asks for a handshake where keys are old or silence follows."""
        peer = self.peers.get(command.peer)
        keypair = self._usable(peer, now) if peer is not None else None
        payload = self._pings.ping(command, keypair, now)
        if peer is None or keypair is None or payload is None:
            self._report(Ponged(command.peer, command.identifier, None))
            return
        self.outbound.send_payload(peer, keypair, payload)
        self.data_sent(peer, keypair, 0, now)

    # What a timer says

    def _timer(self, peer: Peer, kind: str, now: float) -> None:
        timing = self.timing
        match kind:
            case "silence" if peer.unanswered_since:
                at = peer.unanswered_since + timing.keepalive_timeout + timing.rekey_timeout
                if at <= now:
                    peer.unanswered_since = 0.0
                    peer.forget_source()
                    peer.is_silent = peer.is_silent or self._report(Silence(peer.number, False))
                    self.want(peer, now)
                else:
                    self.timers.arm(at + self._jitter(), peer, kind)
            case "answer" if peer.owed_since:
                at = peer.owed_since + timing.keepalive_timeout
                if at <= now:
                    peer.owed_since = 0.0
                    self._send_keepalive(peer, now)
                else:
                    self.timers.arm(at, peer, kind)
            case "keepalive" if peer.keepalive:
                if peer.last_traffic + peer.keepalive <= now:
                    peer.last_traffic = now
                    self._send_keepalive(peer, now)
                self.timers.arm(peer.last_traffic + peer.keepalive, peer, kind)
            case "report" if peer.reporting is not None:
                self._send_report(peer, peer.reporting, now)
            case "units":
                self._look_for_silence(peer, now)
            case "gone":
                self._look_whether_gone(peer, now)
            case "moved":
                self._look_at_moves(peer, now)
            case "path":
                keypair = self._usable(peer, now)
                at = self._probes.turn(peer, keypair, now, self.outbound.send_probe)
                if at < math.inf:
                    self.timers.arm(at, peer, kind)
            case _:
                pass  # what it was for has happened

    def _send_report(self, peer: Peer, keypair: Keypair[Peer], now: float) -> None:
        """Tell *peer* what came of its units; under the keypair they came by, whichever we send with."""
        peer.reporting = None
        report = keypair.bulk.report(now) if keypair.bulk is not None else None
        is_kept = self.by_index.get(keypair.local_index) is keypair
        if report is not None and is_kept and now < keypair.reject_at:
            self.outbound.send_payload(peer, keypair, report)

    def _look_for_silence(self, peer: Peer, now: float) -> None:
        keypair = peer.keypairs.current
        if keypair is None or keypair.bulk is None:
            return
        size = keypair.bulk.size
        due = size.silence_due()
        if due <= now:
            if size.is_known_to_pass:
                self.timers.arm(now + size.patience, peer, "gone")
            size.silence(now)
        elif due < math.inf:
            self.timers.arm(due, peer, "units")

    def _look_whether_gone(self, peer: Peer, now: float) -> None:
        """Call a peer that reported its units, was silent, and has not been heard at all since.

        It may have begun anew, perhaps as somebody who knows nothing of units; and TCP waits longer each time.
        """
        keypair = peer.keypairs.current
        if keypair is None or keypair.bulk is None:
            return
        if peer.last_received <= now - keypair.bulk.size.patience and keypair.created < peer.last_received:
            self.want(peer, now)

    def _search_path_anew(self, peer: Peer, now: float) -> None:
        self._probes.restart(peer, now)
        peer.path_due = 0.0
        if "path" in peer.timers:
            self.timers.rearm(now, peer, "path")

    def _look_at_moves(self, peer: Peer, now: float) -> None:
        """Do what is due after moves of *peer*."""
        assert peer.endpoint is not None
        turn = peer.moves.turn(now)
        due = turn.due
        if turn.count and not self._report(Moved(peer.number, peer.endpoint, turn.count, turn.before)):
            due = peer.moves.not_told(turn)
        if turn.is_path_new:
            self._search_path_anew(peer, now)
        if due < math.inf:
            self.timers.rearm(due, peer, "moved")

    def _jitter(self) -> float:
        return self.timing.rekey_jitter * self._entropy(1)[0] / 256

    def _usable(self, peer: Peer, now: float) -> Keypair[Peer] | None:
        keypair = peer.keypairs.current
        return keypair if keypair is not None and now < keypair.reject_at else None

    def _send_keepalive(self, peer: Peer, now: float) -> None:
        keypair = self._usable(peer, now)
        if keypair is None or self._is_old(keypair, now):
            self._report(Wanted(peer.number, is_idle=True))
        if keypair is None:
            return
        self.outbound.send_payload(peer, keypair, b"")
        peer.owed_since = 0.0
        peer.last_traffic = now

    # What the packet path says

    def want(self, peer: Peer, now: float) -> None:
        """Ask the agent for a session with *peer*, unless it was asked just now."""
        if now - peer.wanted_at >= WANTED_INTERVAL or not peer.wanted_at:
            peer.wanted_at = now
            self._report(Wanted(peer.number))

    def refuse(self, packet: Buffer, reason: str, now: float) -> None:
        """Drop a packet of the tun that no peer takes, and tell its sender."""
        self.drops[reason] += 1
        self.unreachable.tell(packet, now)

    def refused(self, peer: Peer, reason: str, count: int = 1) -> None:
        """Count *count* messages of *peer*, or such that claim to be, that were dropped."""
        peer.drops[reason] += count

    def cannot_reach(self, peer: Peer, packet: Buffer, now: float) -> None:
        """Drop a packet for a peer whose address is not known, and tell its sender."""
        peer.drops["no_endpoint"] += 1
        self.unreachable.tell(packet, now)

    def stage(self, peer: Peer, packet: bytes, now: float) -> None:
        """Keep *packet*, with its virtio header, until there is a session with *peer*."""
        if self.peers.get(peer.number) is not peer:  # removed, and the routes that follow not yet in force
            self.refuse(packet[VIRTIO_SIZE:], "no_peer", now)
            return
        if peer.endpoint is None:
            self.cannot_reach(peer, packet[VIRTIO_SIZE:], now)
            return
        if peer.is_unreachable:
            self.unreachable.tell(packet[VIRTIO_SIZE:], now)
        self._keep(peer, packet)
        self.want(peer, now)

    def data_sent(self, peer: Peer, keypair: Keypair[Peer], count: int, now: float) -> None:
        """Note that *count* packets have been sealed for *peer*."""
        peer.tx_packets += count
        peer.owed_since = 0.0
        peer.last_traffic = now
        if not peer.unanswered_since:
            peer.unanswered_since = now
            if "silence" not in peer.timers:
                wait = self.timing.keepalive_timeout + self.timing.rekey_timeout + self._jitter()
                self.timers.arm(now + wait, peer, "silence")
        if now >= keypair.rekey_at or keypair.counter >= REKEY_AFTER_MESSAGES:
            self.want(peer, now)
        if now >= peer.path_due:
            self.look_at_path(peer, now)

    def look_at_path(self, peer: Peer, now: float) -> None:
        """Have ``peer.path_mtu`` be what the kernel knows, for ``peer.path_due`` has come.

        Where that is little, anybody may have said so: a peer that may be an agent of ours is asked whether it answers
        probes.
        """
        self._kernel_paths.look(peer, now)
        keypair = peer.keypairs.current
        if peer.is_path_known and peer.path_mtu < WIDE and keypair is not None and now < keypair.reject_at:
            self.outbound.offer(peer, keypair, now)

    def data_received(self, peer: Peer, now: float) -> None:
        """Note that a payload that is no keepalive came from *peer*: it is owed an answer."""
        if not peer.owed_since:
            peer.owed_since = now
            if "answer" not in peer.timers:
                self.timers.arm(now + self.timing.keepalive_timeout, peer, "answer")

    def units_sent(self, peer: Peer, bulk: Bulk) -> None:
        """Note that a unit left for *peer*: a report is to come."""
        if "units" not in peer.timers:
            self.timers.arm(bulk.size.silence_due(), peer, "units")

    def unit_received(self, peer: Peer, keypair: Keypair[Peer]) -> None:
        """Note that a unit of *peer* came in whole: it is to be reported."""
        if peer.reporting is None:
            peer.reporting = keypair
            self.timers.arm(peer.last_received + REPORT_TIME, peer, "report")
        elif peer.reporting is not keypair:
            self._send_report(peer, peer.reporting, peer.last_received)
            peer.reporting = keypair

    def authenticated(self, peer: Peer, keypair: Keypair[Peer], now: float) -> None:
        """Note that a message under *keypair* was genuine and new."""
        peer.unanswered_since = 0.0
        peer.last_traffic = now
        if peer.is_silent:
            self._end_silence(peer)
        keypairs = peer.keypairs
        if keypair is keypairs.next and not keypairs.keeps_next_waiting():
            self._retire(keypairs.promote())
            peer.is_unreachable = False
            self._report(Confirmed(peer.number, keypair.local_index))
            self._send_staged(peer, now)
        elif keypair is keypairs.previous:
            keypairs.follow(keypair)
        keypairs.heard = keypair
        current = keypairs.current
        if current is not None and now >= current.rekey_receive_at:
            current.rekey_receive_at = math.inf  # once is enough
            self.want(peer, now)

    def moved(self, peer: Peer, udp: UdpSocket, source: Sockaddr, now: float) -> None:
        """Note that *peer* was heard from *source*, authenticated, through *udp*."""
        if udp.closes_at == math.inf:
            peer.socket = udp
        if source != peer.endpoint:
            if peer.socket is not udp:
                peer.socket = None  # it may be of the other family
            before = peer.endpoint
            self.places.move(peer, source)
            if peer.moves.moved(before, now):
                self._look_at_moves(peer, now)

    def is_from(self, peer: Peer, packet: Buffer) -> bool:
        """Return whether the source address of *packet* is one of *peer*'s."""
        source = bytes(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])
        remembered = self.table.remembered
        owner = remembered[source] if source in remembered else self.table.find(source)
        return owner is peer

    def owner(self, address: bytes) -> Peer | None:
        """Return the peer that *address*, of 4 or 16 bytes, is one of; None if it is nobody's or this node's."""
        owner = self.table.find(address)
        return None if owner is self._own else owner

    def is_own(self, address: bytes) -> bool:
        """Return whether *address*, of 4 or 16 bytes, is one of this node or of what is behind it."""
        return self.table.find(address) is self._own

    def is_from_sources(self, peer: Peer, packet: Buffer) -> bool:
        """Return whether *peer*, in the clear, may send the source address of *packet* although it is none of its own.

        The longer prefix decides, as for destinations: what is of another peer by a longer one is not among them.
        """
        source = bytes(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])
        length = peer.sources.length(source) if peer.sources is not None else -1
        return length >= 0 and length >= self.table.length(source)

    def handshake_received(
        self, udp: UdpSocket, kind: int, datagram: bytes, source: Sockaddr, arrival: Arrival, now: float
    ) -> None:
        """Let a handshake message through to the agent, answer it with a cookie, or drop it."""
        admitted, reply = self._gate.admit(kind, datagram, source, now, self.drops)
        if reply is not None:
            self.sender.answer(udp, reply, source, arrival.source)
        if not admitted:
            return
        self._callers.remember(source, udp, arrival)
        if not self._report(Handshake(datagram, source)):
            self._gate.not_taken()

    # Helpers

    def _payload_mtu(self, mtu: int) -> int:
        """Return what a payload takes where the device's MTU is *mtu*: packets as they are, or frames."""
        return mtu if self._bridge is None else min(mtu + FRAME_OVERHEAD, MAXIMUM_IP)

    def _crowded(self, owner: int) -> None:
        """Count an Ethernet address at *owner* that had to be forgotten for another: frames for it go to everybody."""
        peer = self.peers.get(owner)
        (self.drops if peer is None else peer.drops)["stations_full"] += 1

    def _owner_of(self, address: bytes) -> int | None:
        """Return the number of the peer that an IP address belongs to."""
        remembered = self.table.remembered
        peer = remembered[address] if address in remembered else self.table.find(address)
        return None if peer is None else peer.number

    @staticmethod
    def _is_old(keypair: Keypair[Peer], now: float) -> bool:
        return now >= keypair.rekey_at or keypair.counter >= REKEY_AFTER_MESSAGES

    def _keep(self, peer: Peer, packet: bytes) -> None:
        for owner, _ in self._staging.add(peer.number, packet):
            self.peers[owner].drops["staging_full"] += 1

    def _send_staged(self, peer: Peer, now: float) -> None:
        packets = self._staging.take(peer.number)
        if packets:
            self.outbound.send_staged(peer, packets, now)

    def _report(self, report: Report) -> bool:
        """Tell the agent and return whether the link took it; with the link full, it is dropped and counted."""
        is_taken = self._link_takes(report)
        if not is_taken:
            self.drops["link_full"] += 1
        return is_taken

    def _end_silence(self, peer: Peer) -> None:
        if peer.is_silent:
            peer.is_silent = not self._report(Silence(peer.number, True))

    def _retire(self, keypairs: list[Keypair[Peer]]) -> None:
        for keypair in keypairs:
            del self.by_index[keypair.local_index]
            self.inbound.forget_keypair(keypair.local_index)
            self._report(Retired(keypair.local_index))
