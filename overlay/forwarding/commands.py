"""The agent's commands to the forwarder, carried out on its core."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, assert_never, cast

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Role
from overlay.forwarding import counters
from overlay.forwarding.path.kernel import PathSocket
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.session_commands import SessionCommands
from overlay.forwarding.table import Prefixes
from overlay.forwarding.timers import Slots
from overlay.forwarding.underlay.kernel_drops import count_kernel_drops
from overlay.forwarding.underlay.mmsg import RawCarrier
from overlay.forwarding.underlay.udp_socket import DatagramSocket, UdpSocket, pair
from overlay.forwarding.unreachable import RawIcmp
from overlay.forwarding.workqueue import always
from overlay.host.sockets.queues import KernelSocket, SocketQueues
from overlay.link.messages import (
    OWN,
    REPLACED_TIME,
    AskCounters,
    AskStation,
    Begin,
    BeginCapture,
    Command,
    Counters,
    EndCapture,
    Handled,
    PingPeer,
    Ponged,
    RemovePeer,
    RenewSources,
    Routes,
    SendControl,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPeer,
    Sockets,
    Start,
    Station,
    TellSender,
)
from overlay.link.service_messages import (
    VIRTUAL,
    AskFlows,
    AskServices,
    Pin,
    RemoveService,
    SetPermits,
    SetServers,
    SetService,
)
from overlay.session.constants import GREETINGS_PER_SECOND, Timing
from overlay.session.outputs import Forget, GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.frames import FRAME_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.forwarding.captures import Sink
    from overlay.forwarding.core import Core
    from overlay.forwarding.underlay.mmsg import Carrier
    from overlay.forwarding.underlay.shares import SendQueue


class AnySocket(DatagramSocket, KernelSocket, RawIcmp, PathSocket, Protocol):
    """A socket that arrived as a descriptor: the message that it came with says what it is."""


class Commands:
    """Carries out the commands of the agent.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self,
        core: Core,
        start: Start,
        *,
        carrier: Callable[[int, int], Carrier] = RawCarrier,
        queues: Callable[[AnySocket], SendQueue] = SocketQueues,
        link_is_idle: Callable[[], bool] = always,
    ) -> None:
        """*start* is what *core* was made by; *link_is_idle* tells whether the agent has read all that it was told."""
        self._core, self._link_is_idle = core, link_is_idle
        self._sessions = SessionCommands(core, Timing(*start.times), start.ciphers)
        self._carrier, self._queues = carrier, queues
        self._greetings = Slots(GREETINGS_PER_SECOND)
        self._learns_mtus = False

    def handle(self, command: Command, sockets: Sequence[AnySocket], now: float) -> None:
        """Carry out one message of the agent; *sockets* came with it."""
        match command:
            case Transmit() | InstallKeypair() | Wipe() | Forget() | GiveUp() | Handled() | SetIdentity():
                self._sessions.handle(command, now)
            case SetPeer():
                self._set_peer(command, now)
            case RemovePeer():
                self._remove_peer(command.peer)
            case SetEndpoint():
                self._move(command, now)
            case Routes():
                self._change_routes(command)
            case Sockets():
                self._use_sockets(command, sockets, now)
            case SetNode():
                self._ask_for_paths(command, sockets)
                self._use_node(command)
            case RenewSources():
                self._renew_sources(has_moved=command.has_moved)
            case AskCounters() | AskStation() | PingPeer():
                self._answer(command, now)
            case TellSender():
                self._core.unreachable.tell_of_part(command.packet, now)
            case SendControl():
                self._send_control(command, now)
            case (
                SetService()
                | SetServers()
                | RemoveService()
                | SetPermits()
                | Pin()
                | AskServices()
                | AskFlows()
            ):
                self._core.services.handle(command, self._link_is_idle, now)
            case BeginCapture():
                self._core.captures.begin(command, cast("Sequence[Sink]", sockets))
            case EndCapture():
                self._core.captures.end(command.number)
            case Begin():
                pass  # handled by the loop
            case Start():
                self._core.drops.add("link")  # sent once, before there is a core
            case _:
                assert_never(command)

    def _renew_sources(self, *, has_moved: bool) -> None:
        self._core.jobs.add_once("sources", list(self._core.peers.values()), self._renew_source)
        if has_moved:
            self._core.jobs.add_once("moved", list(self._core.peers.values()), self._show_move)

    def _move(self, command: SetEndpoint, now: float) -> None:
        peer = self._core.peers.get(command.peer)
        if peer is not None and peer.endpoint != command.endpoint:
            peer.contact.moves.leave(peer.endpoint, now)
            self._core.move(peer, command.endpoint, now)

    def _set_peer(self, command: SetPeer, now: float) -> None:
        peer, encapsulation = self._core.peers.get(command.peer), ENCAPSULATIONS.get(command.encapsulation)
        if (
            encapsulation is None
            or (peer is not None and peer.encapsulation is not encapsulation)
            or not encapsulation.has_identifier(command.ends.identifier)
        ):
            self._core.drops.add("link")
            return
        if peer is None:
            peer = self._core.peers[command.peer] = LivePeer(command.peer, encapsulation)
            self._core.captures.watch(peer)
        peer.set_ends(command.ends)
        if self._core.bridge is not None:
            self._core.bridge.set_static(command.peer, command.macs, command.addresses)
        peer.unsealed.sources = Prefixes() if command.sources else None
        if peer.unsealed.sources is not None:
            for packed, length in command.sources:
                peer.unsealed.sources.insert(packed, length, True)
        former, peer.settings = peer.settings, command
        if former.keepalive != command.keepalive:
            is_paced = command.keepalive > 0 and peer.keypairs.usable(now) is None  # it will take a handshake
            self._core.liveness.timers.rearm(
                self._greetings.next(now) if is_paced else now, peer, "keepalive"
            )

    def _remove_peer(self, number: int) -> None:
        peer = self._core.peers.pop(number, None)
        if peer is None:
            return
        self._core.retire(peer.keypairs.clear())
        self._core.staging.take(number)
        self._core.places.leave(peer)
        self._core.liveness.timers.forget(peer)
        self._core.sender.forget(peer)
        if self._core.bridge is not None:
            self._core.bridge.forget(number)
        if peer.clear is not None:
            self._core.inbound.clear.move(peer, None)

    def _leave_old_socket(self, peer: LivePeer, now: float) -> None:
        """Send to *peer* from the sockets that are used now, and tell it, unless it was heard there already."""
        if (
            peer.local.socket is not None
            and peer.local.socket.closes_at == math.inf
            and not peer.local.senders
        ):
            return
        peer.local.forget_source()
        peer.local.socket = None
        peer.local.forget_senders()
        if peer.keypairs.usable(now) is not None:
            self._core.liveness.send_keepalive(peer, now)

    def _show_move(self, peer: LivePeer, now: float) -> None:
        """Tell *peer*, if there is a session, where this host is now."""
        if peer.endpoint is not None and peer.keypairs.usable(now) is not None:
            peer.local.forget_source()
            self._core.liveness.send_keepalive(peer, now)

    def _renew_source(self, peer: LivePeer, now: float) -> None:
        peer.local.forget_source()
        self._core.liveness.search_path_anew(peer, now)

    def _change_routes(self, command: Routes) -> None:
        changes: list[tuple[bytes, int, LivePeer | None]] = [
            (packed, length, None) for packed, length in command.remove
        ]
        for packed, length, number in command.add:
            if number == VIRTUAL:
                peer = self._core.services.vip(packed)
            else:
                peer = self._core.table.own if number == OWN else self._core.peers.get(number)
            if peer is not None:
                changes.append((packed, length, peer))
        self._core.table.stage(changes)
        if command.is_last:
            self._core.table.commit()

    def _use_sockets(self, command: Sockets, raw: Sequence[AnySocket], now: float) -> None:
        encapsulation = ENCAPSULATIONS.get(command.encapsulation)
        roles = set(Role)
        if (
            encapsulation is None
            or len(raw) != len(command.rows)
            or any(row.role not in roles for row in command.rows)
        ):
            self._core.drops.add("link")
            return
        for udp in self._core.sender.sockets:
            if udp.encapsulation is encapsulation:
                # Each raw socket gets everything that arrives, so with two, every packet would arrive twice.
                patience = REPLACED_TIME if encapsulation.has_ports else 0.0
                udp.closes_at = min(udp.closes_at, now + patience)
        known = {udp.raw: udp for udp in self._core.sender.sockets}
        opened = [
            known.pop(each)  # it stays in use, or comes back to it
            if each in known
            else UdpSocket(
                each,
                row.family,
                encapsulation=encapsulation,
                role=Role(row.role),
                protocol=row.protocol,
                carrier=None if encapsulation.has_ports else self._carrier(each.fileno(), row.family),
                queue=self._queues(each),
                lane=row.lane,
            )
            for each, row in zip(raw, command.rows, strict=True)
        ]
        pair(opened)
        for udp in opened:
            udp.closes_at = math.inf
            udp.discovery.undo()
            udp.discovery.learn(self._learns_mtus)
        self._core.sender.use([*known.values(), *opened])
        own_ports = frozenset(row.port.to_bytes(2, "big") for row in command.rows)
        places = self._core.places
        places.own_ports = {**places.own_ports, encapsulation.name: own_ports}
        peers = [peer for peer in self._core.peers.values() if peer.encapsulation is encapsulation]
        self._core.jobs.add_once(f"sockets {encapsulation.name}", peers, self._leave_old_socket)

    def _use_node(self, command: SetNode) -> None:
        self._core.node = command
        if command.public_keys:
            self._core.admission.use_keys(command.public_keys)
        if self._core.bridge is not None:
            self._core.bridge.set_static(OWN, command.macs, command.addresses)
            self._core.bridge.set_most(command.stations)
        mtu = self._core.payload_mtu(command.mtu)
        if mtu != self._core.outbound.splitter.mtu:
            self._core.outbound.set_mtu(mtu)
            self._core.in_band.probes.set_mtu(mtu)
            search = self._core.liveness.search_path_anew
            self._core.jobs.add_once("mtu", list(self._core.peers.values()), search)

    def _ask_for_paths(self, command: SetNode, sockets: Sequence[AnySocket]) -> None:
        """Send ICMP errors with the first suitable one of *sockets*, and learn path MTUs with the others."""
        if len(sockets) != command.has_icmp + len(command.families):
            self._core.drops.add("link")
            return
        self._core.unreachable.send_from(command.addresses, sockets[0] if command.has_icmp else None)
        mtu = self._core.payload_mtu(command.mtu)
        self._core.liveness.paths.kernel.use(command.families, sockets[command.has_icmp :], mtu)
        self._learns_mtus = bool(command.families)
        for udp in self._core.sender.sockets:
            udp.discovery.learn(self._learns_mtus)
        self._core.jobs.add_once(
            "paths", list(self._core.peers.values()), self._core.liveness.paths.kernel.look_soon
        )

    def _answer(self, question: AskCounters | AskStation | PingPeer, now: float) -> None:
        """Answer a question of the agent."""
        match question:
            case AskCounters():
                self._tell_counters(question)
            case AskStation():
                self._tell_station(question, now)
            case PingPeer():
                self._ping(question, now)

    def _tell_counters(self, command: AskCounters) -> None:
        """Report the counters of the requested peers, as they are at their turn, as fast as the agent reads them.

        A question for some peers does not wait behind one for all.
        """
        count_kernel_drops(self._core.drops, self._core.sender.sockets)

        def tell(piece: tuple[Sequence[LivePeer], bool], now: float) -> None:
            mtu, bridge = self._core.outbound.splitter.mtu, self._core.bridge
            overhead = 0 if bridge is None else FRAME_OVERHEAD
            rows = [
                counters.row(
                    peer,
                    mtu,
                    overhead,
                    0 if bridge is None else bridge.learnt(peer.number, now),
                    self._core.lanes.count,
                )
                for peer in piece[0]
            ]
            self._core.report(Counters(command.serial, rows, dict(self._core.drops), piece[1]))

        known = self._core.peers
        some = [known[each] for each in command.peers if each in known]
        self._core.jobs.add(
            "some counters" if command.peers else "counters",
            counters.batches(some if command.peers else list(known.values())),
            tell,
            self._link_is_idle,
        )

    def _tell_station(self, command: AskStation, now: float) -> None:
        """Report where a station is, as the bridge knows; a tun knows none."""
        bridge, mac = self._core.bridge, command.mac
        if bridge is not None and mac is None and command.address is not None:
            mac = bridge.holder(command.address, now)
        owner, seen_at = (None, None) if bridge is None or mac is None else bridge.sighted(mac, now)
        age = None if seen_at is None else max(0.0, now - seen_at)
        self._core.report(Station(command.identifier, mac, owner, age))

    def _ping(self, command: PingPeer, now: float) -> None:
        """Ping a peer that can answer; like a packet, this requests a handshake if keys are old or silence follows."""
        peer = self._core.peers.get(command.peer)
        keypair = peer.keypairs.usable(now) if peer is not None else None
        payload = self._core.in_band.pings.ping(command, keypair, now)
        if peer is None or keypair is None or payload is None:
            self._core.report(Ponged(command.peer, command.identifier, None))
            return
        self._core.outbound.send_payload(peer, keypair, payload)
        self._core.liveness.data_sent(peer, keypair, 0, now)

    def _send_control(self, command: SendControl, now: float) -> None:
        """Pass on what the agent says to other agents."""

        def tell(peer: LivePeer, now: float) -> None:
            keypair = peer.keypairs.usable(now)
            if keypair is None or keypair.bulk is None:
                return
            if keypair.bulk.has_heard:
                self._core.liveness.send_message(peer, command.payload, now)
            else:
                self._core.outbound.offer(peer, keypair, now)

        for number in command.peers:
            peer = self._core.peers.get(number)
            if peer is None or peer.endpoint is None or peer.clear is not None:
                continue
            if command.is_for_agents:
                tell(peer, now)
            else:
                self._core.liveness.send_message(peer, command.payload, now)
        if not command.peers:
            self._core.jobs.add("control", list(self._core.peers.values()), tell)
