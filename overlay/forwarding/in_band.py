"""Messages of agents to each other inside the tunnel: accepted up to a rate, answered, passed on.

A message costs many times what a packet does, and an authentic one may still be one of a flood.  So each peer may send
a limited number per second, whatever they contain, and further ones are counted unread.  The agent gets even fewer of
those that are for it: it ends a forwarder that reports without end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.lane.beside import is_beside
from overlay.forwarding.ratelimit import Bucket
from overlay.link.messages import CONTROL_AT_ONCE, CONTROL_PER_SECOND, ControlReceived
from overlay.wire import control
from overlay.wire.control import FIRST_NIBBLES, Hello, Ping, Pong, Presence, Probe, Probed, Report
from overlay.wire.service_control import FlowsTold, SettingsHeard, SettingsTold, StandingsTold
from overlay.wire.views import ViewAsked, ViewTold

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.lane.keypairs import LaneKeypairs
    from overlay.forwarding.path.probes import Probes
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.pings import Pings
    from overlay.forwarding.timers import Timers
    from overlay.link.messages import Ponged
    from overlay.wire.addresses import Sockaddr
    from overlay.wire.control import ForAgent

# Ours
MESSAGES_PER_SECOND = (
    1500.0  # of one peer: pings at their shortest interval, a search of the MTU, and reports
)
MESSAGES_AT_ONCE = 256


class InBand:
    """The in-band control messages of all peers."""

    def __init__(
        self,
        pings: Pings,
        probes: Probes,
        timers: Timers,
        report: Callable[[Ponged | ControlReceived], object],
        send: Callable[[LivePeer, Keypair[LivePeer], bytes], object],
        flows: Callable[[LivePeer, FlowsTold, float], object],
        lanes: LaneKeypairs,
    ) -> None:
        """*flows* takes a director's messages about its connections."""
        self.lanes = lanes
        self.pings, self.probes, self._timers = pings, probes, timers
        self._report, self._send, self._flows = report, send, flows

    def take(
        self, peer: LivePeer, keypair: Keypair[LivePeer], payload: memoryview, now: float, source: Sockaddr
    ) -> None:
        """Take a message of *peer*, which came from *source*, or count it if it is one too many.

        It is answered under the keypair it came by, which may be ``next`` where handshakes crossed: its peer uses it.
        """
        if not _permits(peer).take(1, now):
            peer.drops.add("control_rate")
            return
        bulk = keypair.bulk
        assert bulk is not None
        answer = None
        try:
            match control.parse(payload):
                case Hello() if keypair.lane:
                    pass  # that of the session counts
                case Hello() as hello:
                    answer = bulk.take_hello(hello, now)
                    self.lanes.heard(keypair, hello.lanes, now)
                    if hello.answers_probes:
                        self._timers.arm(self.probes.due(peer, now), peer, "path")
                case Report() as report:
                    bulk.size.reported(report, now)
                case Ping() as ping:
                    answer = self.pings.pong(ping, keypair, now)
                case Pong() as pong:
                    self._report(self.pings.take(pong, keypair, now))
                case Probe() if keypair.lane and not is_beside(keypair, source):
                    pass  # what it sends would not be recognized as the peer's
                case Probe() as probe:
                    answer = self.probes.answer(probe, keypair, now)
                case Probed() as probed if keypair.lane:
                    self.lanes.probed(keypair, probed.identifier, now)
                case Probed() as probed:
                    self._timers.rearm(self.probes.take(probed, peer, now), peer, "path")
                case FlowsTold() as told:
                    self._flows(peer, told, now)
                case (
                    Presence() | SettingsTold() | SettingsHeard() | StandingsTold() | ViewAsked() | ViewTold()
                ) as message:
                    self._pass_on(peer, message, now)
                case None:
                    pass  # of a later version
        except PacketError as error:
            peer.drops.add(error.reason)
        if answer is not None:
            self._send(peer, keypair, answer)

    def _pass_on(self, peer: LivePeer, message: ForAgent, now: float) -> None:
        if peer.contact.for_agent is None:
            peer.contact.for_agent = Bucket(CONTROL_PER_SECOND, CONTROL_AT_ONCE)
        if peer.contact.for_agent.take(1, now):
            self._report(ControlReceived(peer.number, control.build(message)))
        else:
            peer.drops.add("control_rate")

    @staticmethod
    def spare(peer: LivePeer, firsts: npt.NDArray[np.uint8], rows: list[int], now: float) -> list[int]:
        """Return those of *rows* that take() would take, in their order; the others are counted.

        *firsts* are the first bytes of the payloads by row.  Where not all are messages, all of *rows* are returned.
        """
        nibbles = firsts >> 4
        if not ((nibbles >= FIRST_NIBBLES[0]) & (nibbles <= FIRST_NIBBLES[-1])).all():
            return rows
        room = max(0, _permits(peer).available(now))
        if room < len(rows):
            peer.drops.add("control_rate", len(rows) - room)
        return rows[:room]


def _permits(peer: LivePeer) -> Bucket:
    if peer.contact.messages is None:
        peer.contact.messages = Bucket(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE)
    return peer.contact.messages
