"""The log lines about peers: an event that repeats at one peer is logged a few times, then once a minute with a
count.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.hooks.happening import tell_nobody
from overlay.link.messages import OWN
from overlay.records.events import of_peer
from overlay.session.outputs import Answered, Completed
from overlay.session.peer import UNCONFIRMED
from overlay.wire.addresses import format_sockaddr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.hooks.happening import Tell
    from overlay.link.messages import Moved
    from overlay.roster import Remote, RosterChange
    from overlay.session.peer import HandshakeStatus
    from overlay.wire.addresses import Sockaddr

# Ours
MINUTE = 60.0  # seconds
# How many lines about one event of one peer are written before they come once a minute
MOVES_BURST = 5
LOSSES_BURST = 10  # lost and back, five times
HANDSHAKES_BURST = 60  # as many as rekeys cause in two hours
SWEEP_INTERVAL = HANDSHAKES_BURST * MINUTE  # seconds; events that did not occur for that long are forgotten
LOGGED_PEERS = 50  # peers that a reload logs one by one, at most
DIFFER = "the preshared keys may differ, `overlay status` says what to compare"

log = logging.getLogger("overlay")


def log_change(change: RosterChange) -> None:
    """Log which peers were added or removed, or have another key."""
    log_peers("removed", change.removed)
    log_peers("added", change.added)
    log_peers("changed key", change.new_public_key)


def log_peers(what: str, peers: Sequence[Remote]) -> None:
    """Log that *peers* were added or removed: a line for each, or one for many."""
    if len(peers) > LOGGED_PEERS:
        log.info("peers %s count=%d first=%s", what, len(peers), peers[0].peer.name)
        return
    for remote in peers:
        log.info("peer %s peer=%s", what, remote.peer.name, extra=of_peer(remote.peer.name))


@dataclass(slots=True)
class _Line:
    burst: int
    permits: float  # how many lines may be written now
    since: float
    held: int = 0  # events without a line so far
    text: str = ""  # of the last event
    peer: str | None = None
    level: int = logging.INFO


class Journal:
    """Writes one line for each event, unless there are too many.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, str], _Line] = {}
        self._held: set[tuple[int, str]] = set()
        self._told_once: set[tuple[int, str]] = set()
        self._reached: set[int] = set()  # peers that were reached, by number
        self._swept_at = 0.0
        self.heard: Tell = tell_nobody
        """Receives the events that peers are reached, or no longer reached."""

    def met(
        self, remote: Remote, output: Answered | Completed, handshakes: HandshakeStatus, now: float
    ) -> None:
        """Log that a handshake with *remote* was answered, or completed."""
        where = f"endpoint={format_sockaddr(output.endpoint)}"
        if isinstance(output, Completed):
            self._told_once.discard((remote.number, "doubts"))
            role = "initiator" if output.is_initiator else "responder"
            fields = f"{where} role={role} took={output.took:.3f}"
            self._tell("handshake completed", HANDSHAKES_BURST, remote, fields, now)
            self.found(remote, now)
            return
        self._told_once.discard((remote.number, "clock"))
        name = remote.peer.name
        log.debug("handshake answered peer=%s %s", name, where, extra=of_peer(name))
        if handshakes.unconfirmed >= UNCONFIRMED:
            fields = f"{where} count={handshakes.unconfirmed}: {DIFFER}"
            self._once("doubts", "handshakes answered and never confirmed", remote, fields)

    def replayed(self, remote: Remote, handshakes: HandshakeStatus) -> None:
        """Log that the clock of *remote* was set back, if its initiations show that."""
        if handshakes.has_clock_behind:
            self._once("clock", "clock set back", remote, f"behind={handshakes.behind:.0f}")

    def retrying(self, remote: Remote, handshakes: HandshakeStatus) -> None:
        """Log that the answers of *remote* cannot be opened, if so, when its handshake is repeated."""
        if handshakes.refused:
            fields = f"count={handshakes.refused}: {DIFFER}"
            self._once("doubts", "handshake answers could not be opened", remote, fields)

    def moved(self, remote: Remote, report: Moved, now: float) -> None:
        """Log that *remote* was heard from another address."""
        fields = f"endpoint={format_sockaddr(report.endpoint)}"
        self._tell("peer moved", MOVES_BURST, remote, fields, now, report.count)

    def endpoint_set(self, remote: Remote, endpoint: Sockaddr, cause: str, now: float) -> None:
        """Log that *remote* will be called at another address; if it does not answer and has several, at each in
        turn.
        """
        fields = f"endpoint={format_sockaddr(endpoint)} cause={cause}"
        self._tell("endpoint set", MOVES_BURST, remote, fields, now)

    def lost(self, remote: Remote, cause: str, now: float) -> None:
        """Log that *remote* is not reached, or no longer, unless that was logged; *cause* is in words."""
        if remote.lost_at is None:
            remote.lost_at = now
            self.heard("peer-down", peer=remote.peer.name, cause=cause)
            event = "peer lost" if remote.number in self._reached else "peer not reached"
            self._tell_reach(event, remote, f": {cause}", now, logging.WARNING)

    def found(self, remote: Remote, now: float) -> None:
        """Log that *remote* is reached, if it was not reached before, or was lost."""
        if remote.lost_at is not None or remote.number not in self._reached:
            endpoint = (
                None if remote.endpoint is None else format_sockaddr(remote.heard_at or remote.endpoint)
            )
            self.heard("peer-up", peer=remote.peer.name, endpoint=endpoint)
        if remote.lost_at is not None:
            event = "peer back" if remote.number in self._reached else "peer reached"
            self._tell_reach(event, remote, f" away={now - remote.lost_at:.1f}", now, logging.INFO)
            remote.lost_at = None
        self._reached.add(remote.number)

    def mtu_changed(self, mtu: int, former: int, now: float) -> None:
        """Log that the MTU of the interface changed, as it may whenever a peer moves."""
        self._write_line((OWN, "mtu"), MOVES_BURST, f"mtu changed mtu={mtu} was={former}", now)

    def restored(self, interface: str, fields: str, now: float) -> None:
        """Log that another program had changed *interface*, which is restored; *fields* say what was different."""
        text = f"interface changed by another program, restored interface={interface} {fields}"
        self._write_line((OWN, "restored"), MOVES_BURST, text, now, level=logging.WARNING)

    def forget(self, remote: Remote) -> None:
        """Forget *remote*, which was removed."""
        self._told_once = {place for place in self._told_once if place[0] != remote.number}
        self._reached.discard(remote.number)

    def turn(self, now: float) -> None:
        """Write the lines whose minute has come."""
        for place in list(self._held):
            self._write(place, self._lines[place], now)
        if now - self._swept_at >= SWEEP_INTERVAL:
            self._swept_at = now
            quiet = [
                place
                for place, line in self._lines.items()
                if not line.held and now - line.since >= SWEEP_INTERVAL
            ]
            for place in quiet:
                del self._lines[place]

    def _tell(self, event: str, burst: int, remote: Remote, fields: str, now: float, count: int = 1) -> None:
        """Write that *event* happened *count* times to *remote*, now or, with the last *fields*, in a later line."""
        name = remote.peer.name
        text = f"{event} peer={name} {fields}"
        self._write_line((remote.number, event), burst, text, now, count, peer=name)

    def _tell_reach(self, event: str, remote: Remote, fields: str, now: float, level: int) -> None:
        """Write that *remote* is lost or back.  Both share one line a minute, so that the last line is true."""
        name = remote.peer.name
        text = f"{event} peer={name}{fields}"
        self._write_line((remote.number, "reached"), LOSSES_BURST, text, now, level=level, peer=name)

    def _write_line(
        self,
        place: tuple[int, str],
        burst: int,
        text: str,
        now: float,
        count: int = 1,
        level: int = logging.INFO,
        peer: str | None = None,
    ) -> None:
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line(burst, burst, now)
        line.held += count
        line.text, line.level, line.peer = text, level, peer
        self._write(place, line, now)

    def _once(self, kind: str, event: str, remote: Remote, fields: str) -> None:
        """Write a warning that stays true until *kind* is withdrawn."""
        place = remote.number, kind
        if place not in self._told_once:
            self._told_once.add(place)
            name = remote.peer.name
            log.warning("%s peer=%s %s", event, name, fields, extra=of_peer(name))

    def _write(self, place: tuple[int, str], line: _Line, now: float) -> None:
        line.permits = min(line.burst, line.permits + (now - line.since) / MINUTE)
        line.since = now
        if line.permits < 1:
            self._held.add(place)
            return
        self._held.discard(place)
        line.permits -= 1
        extra = None if line.peer is None else of_peer(line.peer)
        log.log(line.level, "%s%s", line.text, f" times={line.held}" if line.held > 1 else "", extra=extra)
        line.held = 0
