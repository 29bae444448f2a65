"""Refused handshakes: how many, and what is known about their senders."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from overlay.errors import ReplayedInitiationError, UnknownInitiatorError
from overlay.records.events import of_peer
from overlay.troubles.misdirected import Misdirected
from overlay.troubles.strangers import Strangers
from overlay.troubles.unkeyed import has_key
from overlay.wire.addresses import format_sockaddr
from peers.peer import format_public_key

if TYPE_CHECKING:
    from typing import Any

    from overlay.config import Node
    from overlay.diagnosis.finding import Finding
    from overlay.errors import PacketError
    from overlay.link.messages import Handshake
    from overlay.records.journal import Journal
    from overlay.roster import Roster
    from overlay.session.sessions import Sessions
    from overlay.wire.addresses import Sockaddr

# Ours
LINES, LINES_TIME = (
    5,
    600.0,
)  # warnings about senders that are not peers: at most this many in this many seconds

log = logging.getLogger("overlay")


class Refusals:
    """The record of refused handshakes.  Times are seconds of CLOCK_BOOTTIME.

    *counts* are by reason, except for those that are counted for a peer.
    """

    def __init__(self, roster: Roster, sessions: Sessions, journal: Journal) -> None:
        self.counts: dict[str, int] = {}
        self.strangers = Strangers()
        self.misdirected = Misdirected()
        self._roster, self._sessions, self._journal = roster, sessions, journal
        self._told: deque[float] = deque(maxlen=LINES)

    def count(self, reason: str) -> None:
        """Count one refusal."""
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def take(self, error: PacketError, report: Handshake, node: Node | None, now: float) -> None:
        """Record that *report* was refused with *error*."""
        source, whose = report.source, ""
        is_meant = node is None or has_key(
            node
        )  # a node without a key knows no peer, so no caller's key is wrong
        remote = None
        if isinstance(error, ReplayedInitiationError):
            remote = self._roster.by_number.get(error.number)
        if remote is not None:
            remote.replays += 1
            self._journal.replayed(remote, self._sessions.status(remote.number))
        else:
            self.count(error.reason)
        if isinstance(error, UnknownInitiatorError) and is_meant:
            key = format_public_key(error.public_key)
            if self.strangers.note(error.public_key, source, now):
                name = self._roster.names_by_host().get(source[0])
                self._warn(_describe_stranger(key, source, name), name, now)
            whose = f" public_key={key}"
        elif (
            error.reason == "mac1"
            and is_meant
            and not self._is_own(report.datagram)
            and self.misdirected.note(report.datagram, source, now)
            and node is not None
        ):
            finding = self.describe_misdirected(node, now)[source[0]]
            self._warn(str(finding), finding.peer, now)
        log.debug("handshake refused reason=%s source=%s%s", error.reason, format_sockaddr(source), whose)

    def describe_strangers(self, now: float) -> list[dict[str, Any]]:
        """Return the callers with keys that no peer has."""
        return self.strangers.describe(self._roster.names_by_host() if self.strangers else {}, now)

    def describe_misdirected(self, node: Node, now: float) -> dict[str, Finding]:
        """Return, by host, a finding on handshakes for other keys that come from it."""
        if not self.misdirected:
            return {}
        return self.misdirected.describe(self._roster.names_by_host(), node.own, node.others, now)

    def _is_own(self, datagram: bytes) -> bool:
        """Return whether this node sent *datagram*, an initiation: an endpoint may be this host itself."""
        return self._sessions.has_index(int.from_bytes(datagram[4:8], "little"))

    def _warn(self, sentence: str, name: str | None, now: float) -> None:
        """Write a warning about the peer *name*, or a host that is not a peer, unless there were many."""
        if len(self._told) == LINES and now - self._told[0] < LINES_TIME:
            return
        self._told.append(now)
        log.warning("%s", sentence, extra=None if name is None else of_peer(name))


def _describe_stranger(key: str, source: Sockaddr, name: str | None) -> str:
    """Return a sentence on a caller with *key*; the peer *name* is at that address."""
    calls = f"handshakes with the public key {key}, which no peer has, arrive from {format_sockaddr(source)}"
    if name is None:
        return f"{calls}, which is not the address of a known peer: see whether a public_key in the peers file is wrong"
    return f"{calls}, the address of {name}: see whether `overlay pubkey` prints that key at {name}"
