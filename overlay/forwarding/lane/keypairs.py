"""The lanes of sessions: made when both ends have some, probed, and sent by where probes are answered.

A forwarder that has lanes (``forwarding.lanes``) sends on the session's lane with the same number; if the session has
fewer, several of its own share one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from overlay.crypto.blake2s import kdf1
from overlay.errors import PacketError
from overlay.forwarding.keypair import Keypair
from overlay.forwarding.lane.session import SessionLanes
from overlay.forwarding.underlay.flows import FurtherFlow
from overlay.wire import control
from overlay.wire.control import Probe
from overlay.wire.lanes import in_common, index_of, key_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.forwarding.indices import ReceiverIndices
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.timers import Timers
    from overlay.session.constants import Timing
    from overlay.session.outputs import InstallKeypair

# Ours
HEARD_WITHIN = (
    15.0  # seconds: a peer that was silent for longer may have restarted, and know nothing of lanes
)


class LaneKeypairs:
    """The lanes of the sessions with all peers."""

    def __init__(
        self,
        by_index: ReceiverIndices,
        timers: Timers,
        timing: Timing,
        *,
        send: Callable[[LivePeer, Keypair[LivePeer], bytes], object],
        forget: Callable[[Keypair[LivePeer]], None],
    ) -> None:
        """*send* sends a payload under the keypair of a lane, by that lane; *forget* takes one out of *by_index*."""
        self._by_index, self._timers, self._timing = by_index, timers, timing
        self._send, self._forget = send, forget
        self.count = 1  # that this node has

    def begin(
        self, keypair: Keypair[LivePeer], made: InstallKeypair, ciphers: Sequence[int], mtu: int, now: float
    ) -> None:
        """Let a new session have lanes, those of the one before if its peer still knows of them;
        it is not installed yet.

        *ciphers* and *mtu* are those of Keypair.
        """
        if self.count == 1 or keypair.bulk is None:
            return
        peer = keypair.peer

        def make(lane: int) -> Keypair[LivePeer]:
            return Keypair(peer, lane_of(made, lane), self._timing, ciphers, mtu, session=keypair, lane=lane)

        keypair.lanes = SessionLanes(make)
        keypair.bulk.tell_lanes(self.count)
        peer.ask_about_probes()  # so that it is told how many there are
        before = peer.keypairs.current
        if before is None or before.lanes is None or before.lanes.count == 1:
            return
        is_in_time = made.created >= before.created + self._timing.rekey_after_time / 2
        if is_in_time and now < peer.contact.last_received + HEARD_WITHIN:
            self._use(keypair, before.lanes.count, now, before)

    def heard(self, keypair: Keypair[LivePeer], theirs: int, now: float) -> None:
        """Note that the peer has said hello, and has that many lanes; the first hello counts."""
        lanes = keypair.lanes
        if lanes is None or lanes.are_agreed:
            return
        lanes.are_agreed = True
        self._use(keypair, in_common(self.count, theirs), now)
        for each in lanes.keypairs:
            assert each.bulk is not None
            assert keypair.bulk is not None
            each.bulk.take_on(keypair.bulk)

    def _use(
        self, keypair: Keypair[LivePeer], count: int, now: float, before: Keypair[LivePeer] | None = None
    ) -> None:
        """Use *count* lanes in a session, which follows that of *before*, if it is given."""
        lanes, peer = keypair.lanes, keypair.peer
        assert lanes is not None
        earlier = None if before is None else before.lanes
        made = lanes.grow(count, now, () if earlier is None else earlier.are_open())
        for each in made:
            self._by_index[each.local_index] = each
            if earlier is not None:
                each.was_beside = earlier.keypairs[each.lane - 1].was_beside
            if each.bulk is not None and earlier is not None:
                bulk = earlier.keypairs[each.lane - 1].bulk
                assert bulk is not None
                each.bulk.size = bulk.size.successor()
        for each in lanes.shrink(count):
            self._forget(each)
        peer.lanes = [FurtherFlow(peer, lane) for lane in range(lanes.count)]
        keypair.send_by(lanes.sending(self.count))
        if made:
            self._timers.rearm(now, peer, "lanes")

    def turn(self, peer: LivePeer, now: float) -> None:
        """Send the probes that are due."""
        keypair = peer.keypairs.usable(now)
        lanes = None if keypair is None else keypair.lanes
        if keypair is None or lanes is None or not lanes.keypairs:
            return
        were_open, is_flowing = lanes.are_open(), lanes.is_flowing(peer.traffic.tx_packets)
        for each, trial in zip(lanes.keypairs, lanes.trials, strict=True):
            identifier = trial.turn(now, is_flowing=is_flowing)
            if identifier is not None:
                self._send(peer, each, control.build(Probe(identifier)))
        if lanes.are_open() != were_open:
            keypair.send_by(lanes.sending(self.count))
        due = min(trial.due if is_flowing else trial.next() for trial in lanes.trials)
        if due < math.inf:
            self._timers.arm(due, peer, "lanes")

    def flows(self, peer: LivePeer, now: float) -> None:
        """Continue the probes of lanes, now that there are packets again."""
        keypair = peer.keypairs.current
        if keypair is not None and keypair.lanes is not None and keypair.lanes.keypairs:
            self._timers.arm(now, peer, "lanes")

    def probed(self, keypair: Keypair[LivePeer], identifier: int, now: float) -> None:
        """Take an answer that came on the lane of *keypair*.  Raises PacketError if none is expected."""
        session = keypair.session
        lanes = None if session is None else session.lanes
        if session is None or lanes is None or keypair.lane >= lanes.count:
            raise PacketError("probed_unexpected")
        trial = lanes.trials[keypair.lane - 1]
        was_open = trial.is_open
        if not trial.answered(identifier, now):
            raise PacketError("probed_unexpected")
        if not was_open:
            session.send_by(lanes.sending(self.count))


def lane_of(made: InstallKeypair, lane: int) -> InstallKeypair:
    """Return the keypair of *lane* of the session that has the keypair *made*."""
    label = key_label(lane)
    return dataclasses.replace(
        made,
        local_index=index_of(made.local_index, lane),
        remote_index=index_of(made.remote_index, lane),
        send_key=kdf1(made.send_key, label),
        receive_key=kdf1(made.receive_key, label),
        unit_keys=[
            (cipher, kdf1(send, label), kdf1(receive, label)) for cipher, send, receive in made.unit_keys
        ],
    )
