"""The agent's commands about sessions: handshakes to send, keypairs to use and to forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, assert_never

from overlay.forwarding.keypair import Keypair
from overlay.link.messages import Handled, Retired, SetIdentity
from overlay.session.outputs import Forget, GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.messages import INITIATION, RESPONSE
from overlay.wire.virtio import VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.forwarding.core import Core
    from overlay.session.constants import Timing

SessionCommand: TypeAlias = Transmit | InstallKeypair | Wipe | Forget | GiveUp | Handled | SetIdentity


class SessionCommands:
    """Carries them out on *core*.  *ciphers* are those of bulk units."""

    def __init__(self, core: Core, timing: Timing, ciphers: Sequence[int]) -> None:
        self._core, self._timing, self._ciphers = core, timing, ciphers

    def handle(self, command: SessionCommand, now: float) -> None:
        """Carry out one message of the agent."""
        match command:
            case Transmit():
                self._transmit(command, now)
            case InstallKeypair():
                self._install(command, now)
            case Wipe():
                self._wipe(command.peer)
            case Forget():
                self._forget(command)
            case GiveUp():
                self._give_up(command.peer, now)
            case Handled():
                self._core.admission.handled(command.count)
            case SetIdentity():
                self._identify(command.public_key)
            case _:
                assert_never(command)

    def _identify(self, public_key: bytes) -> None:
        self._core.admission.identify(public_key)
        for peer in self._core.peers.values():
            self._core.retire(peer.keypairs.clear())
            peer.contact.wanted_at = 0.0  # what was requested under the former key is requested again

    def _wipe(self, number: int) -> None:
        peer = self._core.peers.get(number)
        if peer is not None:
            self._core.retire(peer.keypairs.clear())

    def _forget(self, command: Forget) -> None:
        peer = self._core.peers.get(command.peer)
        if peer is not None:
            self._core.retire(peer.keypairs.remove(command.local_indices))

    def _transmit(self, command: Transmit, now: float) -> None:
        peer = self._core.peers.get(command.peer)
        if peer is None:
            return
        self._core.admission.sent(command.datagram, now)
        if command.renew_source:
            peer.local.forget_source()
        if command.endpoint is None:
            self._core.sender.send_message(peer, command.datagram)
            return
        caller = self._core.admission.callers.find(command.endpoint, self._core.sender.sockets)
        if caller is None:
            peer.drops.add("no_endpoint")
        elif self._core.sender.answer(caller.udp, command.datagram, command.endpoint, caller.source):
            peer.traffic.tx_bytes += len(command.datagram)

    def _install(self, made: InstallKeypair, now: float) -> None:
        peer = self._core.peers.get(made.peer)
        if peer is None or peer.clear is not None or made.local_index in self._core.by_index:
            self._core.report(Retired(made.local_index))
            return
        keypair = Keypair(peer, made, self._timing, self._ciphers, self._core.outbound.splitter.mtu)
        current = peer.keypairs.current
        if keypair.bulk is not None and current is not None and current.bulk is not None:
            keypair.bulk.size = current.bulk.size.successor()
        self._core.lanes.begin(keypair, made, self._ciphers, self._core.outbound.splitter.mtu, now)
        self._core.retire(peer.keypairs.install(keypair))
        self._core.by_index[made.local_index] = keypair
        peer.traffic.rx_bytes += RESPONSE.size if made.is_initiator else INITIATION.size
        peer.contact.last_received = peer.contact.last_traffic = now
        peer.contact.unanswered_since = 0.0
        self._core.move(peer, made.endpoint, now)
        caller = self._core.admission.callers.find(made.endpoint, self._core.sender.sockets)
        if caller is not None:
            peer.local.socket = caller.udp.sends_by
            peer.local.answer_from(caller.source, caller.pktinfo)
        if made.is_initiator:
            peer.contact.is_unreachable = False
            self._core.liveness.end_silence(peer)
            self._core.send_staged(peer, now)
            if self._core.bridge is not None:
                self._core.outbound.offer(peer, keypair, now)
            if not keypair.counter:
                self._core.liveness.send_keepalive(
                    peer, now
                )  # tells the responder that it may use the keypair

    def _give_up(self, number: int, now: float) -> None:
        peer = self._core.peers.get(number)
        if peer is None:
            return
        peer.contact.is_unreachable = True
        for packet in self._core.staging.take(number):
            peer.drops.add("given_up", 1, memoryview(packet)[VIRTIO_SIZE:])
            self._core.unreachable.tell(packet[VIRTIO_SIZE:], now)
