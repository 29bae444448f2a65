"""What follows from traffic and timers: whether a peer is there, is owed an answer, or must be called or told
something.

The forwarder's half of the timers of a session (whitepaper section 6): it reports edges to the agent, which has the
other half, and answers by itself with keepalives.  Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.forwarding.bulk.capability import REPORT_TIME
from overlay.forwarding.peer import WIDE
from overlay.link.messages import Moved, SessionWanted, Silence
from overlay.session.constants import REKEY_AFTER_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overlay.forwarding.batch import Batch
    from overlay.forwarding.bulk.capability import Bulk
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.lane.keypairs import LaneKeypairs
    from overlay.forwarding.path.sources import PathMtuSources
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.timers import Timers
    from overlay.link.messages import Report
    from overlay.session.constants import Timing

# Ours
WANTED_INTERVAL = 1.0  # seconds between two requests for the same session; the agent knows when to retry


class Liveness:
    """The timers of all peers, and what moves them."""

    def __init__(
        self,
        timing: Timing,
        paths: PathMtuSources,
        batch: Batch,
        by_index: Mapping[int, Keypair[LivePeer]],
        timers: Timers,
        lanes: LaneKeypairs,
        *,
        report: Callable[[Report], bool],
        entropy: Callable[[int], bytes],
    ) -> None:
        """*report* passes a report to the agent, and returns whether the link accepted it."""
        self.lanes, self.timers = lanes, timers
        self._timing, self.paths = timing, paths
        self._batch, self._by_index, self._report, self._entropy = batch, by_index, report, entropy

    # Called by the packet path

    def want(self, peer: LivePeer, now: float) -> None:
        """Request a session with *peer* from the agent, unless that was done just now."""
        if now - peer.contact.wanted_at >= WANTED_INTERVAL or not peer.contact.wanted_at:
            peer.contact.wanted_at = now
            self._report(SessionWanted(peer.number))

    def data_sent(self, peer: LivePeer, keypair: Keypair[LivePeer], count: int, now: float) -> None:
        """Note that *count* packets have been sealed for *peer*."""
        contact = peer.contact
        peer.traffic.tx_packets += count
        contact.owed_since = 0.0
        contact.last_traffic = now
        if not contact.unanswered_since:
            contact.unanswered_since = now
            self._await_answer(peer, now)
        if now >= keypair.rekey_at or now >= peer.path.due or keypair.counter >= REKEY_AFTER_MESSAGES:
            self._renew(peer, keypair, now)

    def after_send(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        """Do what data_sent() does except for counters and times, which the compiled path has written."""
        self._await_answer(peer, now)
        self._renew(peer, keypair, now)

    def _await_answer(self, peer: LivePeer, now: float) -> None:
        if "silence" not in peer.timers:
            wait = self._timing.keepalive_timeout + self._timing.rekey_timeout + self._jitter()
            self.timers.arm(now + wait, peer, "silence")
            self.lanes.flows(peer, now)

    def _renew(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        if now >= keypair.rekey_at or keypair.counter >= REKEY_AFTER_MESSAGES:
            self.want(peer, now)
        if now >= peer.path.due:
            self.look_at_path(peer, now)

    def look_at_path(self, peer: LivePeer, now: float) -> None:
        """Set ``peer.path.mtu`` to what the kernel knows, because ``peer.path.due`` has come.

        A small value may have been forged by anyone, and where ICMP is filtered the kernel learns nothing: a peer
        that may run an agent of this project is asked whether it answers probes, as soon as a packet is sent
        that may be too large.
        """
        self.paths.kernel.look(peer, now)
        keypair = peer.keypairs.usable(now)
        is_narrow = peer.path.is_known and peer.path.mtu < WIDE
        if keypair is not None and (is_narrow or peer.asking.is_worth_it):
            self._batch.offer(peer, keypair, now)

    def data_received(self, peer: LivePeer, now: float) -> None:
        """Note that *peer* sent a payload other than a keepalive, and must be answered."""
        if not peer.contact.owed_since:
            peer.contact.owed_since = now
            self.after_receipt(peer, now)

    def after_receipt(self, peer: LivePeer, now: float) -> None:
        """Arm the timer at whose end *peer* must be answered."""
        if "answer" not in peer.timers:
            self.timers.arm(now + self._timing.keepalive_timeout, peer, "answer")

    def units_sent(self, peer: LivePeer, bulk: Bulk) -> None:
        """Note that a unit left for *peer*: a report should follow."""
        if "units" not in peer.timers:
            self.timers.arm(bulk.size.silence_due(), peer, "units")

    def unit_received(self, peer: LivePeer, keypair: Keypair[LivePeer]) -> None:
        """Note that a unit of *peer* arrived complete: it must be reported."""
        keypair = keypair.session or keypair
        if peer.contact.reporting is None:
            peer.contact.reporting = keypair
            self.timers.arm(peer.contact.last_received + REPORT_TIME, peer, "report")
        elif peer.contact.reporting is not keypair:
            self._send_report(peer, peer.contact.reporting, peer.contact.last_received)
            peer.contact.reporting = keypair

    # Called for a timer

    def turn(self, peer: LivePeer, kind: str, now: float) -> None:
        """Do what the timer of *kind* of *peer*, which is due, was armed for."""
        timing = self._timing
        match kind:
            case "silence" if peer.contact.unanswered_since:
                at = peer.contact.unanswered_since + timing.keepalive_timeout + timing.rekey_timeout
                if at <= now:
                    peer.contact.unanswered_since = 0.0
                    peer.local.forget_source()
                    peer.contact.is_silent = peer.contact.is_silent or self._report(
                        Silence(peer.number, False)
                    )
                    self.want(peer, now)
                else:
                    self.timers.arm(at + self._jitter(), peer, kind)
            case "answer" if peer.contact.owed_since:
                at = peer.contact.owed_since + timing.keepalive_timeout
                if at <= now:
                    peer.contact.owed_since = 0.0
                    self.send_keepalive(peer, now)
                else:
                    self.timers.arm(at, peer, kind)
            case "keepalive" if peer.settings.keepalive:
                if peer.contact.last_traffic + peer.settings.keepalive <= now:
                    peer.contact.last_traffic = now
                    self.send_keepalive(peer, now)
                self.timers.arm(peer.contact.last_traffic + peer.settings.keepalive, peer, kind)
            case "report" if peer.contact.reporting is not None:
                self._send_report(peer, peer.contact.reporting, now)
            case "units":
                self._look_for_silence(peer, now)
            case "gone":
                self._look_whether_gone(peer, now)
            case "lanes":
                self.lanes.turn(peer, now)
            case "moved":
                self.look_at_moves(peer, now)
            case "path":
                keypair = peer.keypairs.usable(now)
                at = self.paths.probes.turn(peer, keypair, now, self._batch.send_probe)
                if at < math.inf:
                    self.timers.arm(at, peer, kind)
            case _:
                pass  # what it was for has happened

    def send_keepalive(self, peer: LivePeer, now: float) -> None:
        """Send *peer* a keepalive, and ask the agent for newer keys where there are none or the time of these is
        over.
        """
        self.send_message(peer, b"", now)

    def send_message(self, peer: LivePeer, payload: bytes, now: float) -> None:
        """Send *peer* a control message that expects no answer; it counts like a keepalive, and may be lost
        like one.
        """
        keypair = peer.keypairs.usable(now)
        if keypair is None or self._is_old(keypair, now):
            self._report(SessionWanted(peer.number, is_idle=True))
        if keypair is None:
            return
        self._batch.send_payload(peer, keypair, payload)
        peer.contact.owed_since = 0.0
        peer.contact.last_traffic = now

    def end_silence(self, peer: LivePeer) -> None:
        """Tell the agent that *peer* is heard again, if it was told that it is silent; a full link is tried again."""
        if peer.contact.is_silent:
            peer.contact.is_silent = not self._report(Silence(peer.number, True))

    def look_at_moves(self, peer: LivePeer, now: float) -> None:
        """Do what is due after moves of *peer*."""
        assert peer.endpoint is not None
        turn = peer.contact.moves.turn(now)
        due = turn.due
        if turn.count and not self._report(Moved(peer.number, peer.endpoint, turn.count, turn.before)):
            due = peer.contact.moves.not_told(turn)
        if turn.is_path_new:
            self.search_path_anew(peer, now)
        if due < math.inf:
            self.timers.rearm(due, peer, "moved")

    def search_path_anew(self, peer: LivePeer, now: float) -> None:
        """Search for the MTU of the path to *peer* again, and ask the kernel for it: it may be another path."""
        self.paths.probes.restart(peer, now)
        peer.path.due = 0.0
        if peer.path.search is not None:  # it may have ended, where this host's own device refused a probe
            self.timers.rearm(now, peer, "path")

    def _send_report(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        """Report to *peer* what arrived of its units, under their keypair, whichever we send with."""
        peer.contact.reporting = None
        for each in keypair.all():
            report = each.bulk.report(now) if each.bulk is not None else None
            is_kept = self._by_index.get(each.local_index) is each
            if report is not None and is_kept and now < each.reject_at:
                self._batch.send_payload(peer, each, report)

    def _look_for_silence(self, peer: LivePeer, now: float) -> None:
        keypair = peer.keypairs.current
        next_due = math.inf
        for each in keypair.all() if keypair is not None else ():
            if each.bulk is None:
                return
            size = each.bulk.size
            due = size.silence_due()
            if due > now:
                next_due = min(next_due, due)
                continue
            if size.is_known_to_pass:
                self.timers.arm(now + size.patience, peer, "gone")
            size.silence(now)
        if next_due < math.inf:
            self.timers.arm(next_due, peer, "units")

    def _look_whether_gone(self, peer: LivePeer, now: float) -> None:
        """Call a peer that reported its units, was silent, and has not been heard at all since.

        It may have restarted, perhaps with software that does not know units; and TCP waits longer each time.
        """
        keypair = peer.keypairs.current
        if keypair is None or keypair.bulk is None:
            return
        if (
            peer.contact.last_received <= now - keypair.bulk.size.patience
            and keypair.created < peer.contact.last_received
        ):
            self.want(peer, now)

    def _jitter(self) -> float:
        return self._timing.rekey_jitter * self._entropy(1)[0] / 256

    @staticmethod
    def _is_old(keypair: Keypair[LivePeer], now: float) -> bool:
        return now >= keypair.rekey_at or keypair.counter >= REKEY_AFTER_MESSAGES
