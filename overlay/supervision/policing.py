"""How many reports of each kind a forwarder may send before it is ended as compromised.

An honest forwarder sends each kind of report about once a second for each peer, and what it kept while the agent was
busy.  A report costs the agent about ten microseconds, so a forwarder that reports without end takes a processor.  Two
kinds do not count: awaited answers, and handshakes.  Handshakes cost most, but the network decides their number; the
forwarder asks for cookies when there are many, and the agent takes them batch by batch with its other tasks in between.
Counters and flows that were not requested count as many reports as they have rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.link.messages import (
    CONTROL_AT_ONCE,
    CONTROL_PER_SECOND,
    ControlReceived,
    Counters,
    Handshake,
    Ponged,
    Report,
    ServiceReport,
    Station,
)
from overlay.link.service_messages import Flows, ServiceCounters

if TYPE_CHECKING:
    from collections.abc import Callable

# Reports of one kind: in addition to those that peers cause, as many as a forwarder keeps for a busy agent
PER_SECOND, PER_SECOND_AND_PEER = 200.0, 2.0
BURST, BURST_PER_PEER = 20_000.0, 4.0
# Messages that are not reports, in total: an honest forwarder sends none, and some take long to parse
GARBAGE = 100.0
_PER_PEER: dict[type, tuple[float, float]] = {ControlReceived: (CONTROL_PER_SECOND, CONTROL_AT_ONCE)}

Answer = Counters | Ponged | Station | ServiceReport


class Policing:
    """What one forwarder has reported recently.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self, is_awaited: Callable[[Answer], bool]) -> None:
        """*is_awaited* tells whether a question waits for a report."""
        self._is_awaited = is_awaited
        self._spent: dict[type, tuple[float, float]] = {}  # by kind: reports, and when they were counted

    def allows(self, report: Report | None, peers: int, now: float) -> bool:
        """Count *report*, None for an invalid one, of a forwarder with *peers*; return False if there are too many."""
        if isinstance(report, Handshake) or (isinstance(report, Answer) and self._is_awaited(report)):
            return True
        kind = type(report)
        each, at_once = _PER_PEER.get(kind, (PER_SECOND_AND_PEER, BURST_PER_PEER))
        rate, burst = PER_SECOND + each * peers, BURST + at_once * peers
        if report is None:
            rate, burst = 0.0, GARBAGE
        spent, since = self._spent.get(kind, (0.0, now))
        cost = 1 + _rows(report)
        spent = max(0.0, spent - (now - since) * rate) + cost
        self._spent[kind] = spent, now
        return spent <= burst


def _rows(report: Report | None) -> int:
    match report:
        case Counters():
            return len(report.peers)
        case ServiceCounters():
            return len(report.servers) + len(report.services)
        case Flows():
            return len(report.rows)
    return 0


def kind_of(report: Report | None) -> str:
    """Return the name of a report's kind, for people."""
    return "garbage" if report is None else type(report).__name__
