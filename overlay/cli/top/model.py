"""What ``overlay top`` shows, computed from the agent's answers: rows of peers with rates, sorted and filtered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overlay.cli.output import format_bytes
from overlay.troubles.peers import severity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from overlay.cli.agents import PeerStatus, Status

# Ours
BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"  # for UTF-8 terminals, and for others
UNKNOWN = "-"
RECENT = 5  # samples from which the loss and the round trip are computed
EVENTS = 200  # kept for display


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The agent's answers at a time, in seconds of a clock that only moves forward.

    *history* has rows of peers by name, *services* and *events* what is new since the last snapshot; None for either if
    it was not asked for.
    """

    at: float
    status: Status
    services: Sequence[Mapping[str, Any]] | None = None
    events: Sequence[Mapping[str, Any]] = ()
    history: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    has_restarted: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One peer.  Rates are per second; None is not known."""

    name: str
    state: str
    encapsulation: str
    endpoint: str | None
    subnets: tuple[str, ...]
    received: float | None
    sent: float | None
    round_trip: float | None
    loss: float | None
    mtu: int | None
    dropping: float | None
    drops: Mapping[str, int]
    notes: tuple[str, ...]
    past: tuple[float | None, ...] = ()  # bytes per second in both directions, the latest at the end

    @property
    def traffic(self) -> float:
        """Return bytes per second in both directions; -1 if not known."""
        return -1.0 if self.received is None or self.sent is None else self.received + self.sent

    @property
    def severity(self) -> int:
        """Return how urgent its state is; above 1, the peer is in trouble."""
        return severity(self.state, self.notes)


ORDERS: dict[str, Callable[[Row], Any]] = {
    "traffic": lambda row: (-row.traffic, row.name),
    "name": lambda row: row.name,
    "trouble": lambda row: (-row.severity, -row.traffic, row.name),
    "round trip": lambda row: (-_or(row.round_trip, -1.0), row.name),
    "loss": lambda row: (-_or(row.loss, -1.0), row.name),
    "drops": lambda row: (-_or(row.dropping, -1.0), row.name),
}
"""The sort keys of rows, by the name shown."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A snapshot with the changes since the previous one: rows of all peers, totals and drops of the node.

    *totals* are bytes per second, received and sent; *dropping* are the drop reasons that grow, in packets per second.
    """

    snapshot: Snapshot
    rows: Sequence[Row]
    totals: tuple[float | None, float | None]
    dropping: Mapping[str, float]


class Rates:
    """Makes pictures from snapshots, which takes half a second for 10,000 peers: not in the thread that draws."""

    def __init__(self) -> None:
        self._before: Snapshot | None = None
        self._history: dict[str, Mapping[str, Any]] = {}

    def take(self, snapshot: Snapshot) -> Picture:
        """Return the picture of *snapshot*.  Rates are the changes since the previous one, unless the agent is
        another.
        """
        before = self._before
        if before is not None and (snapshot.has_restarted or before.status.pid != snapshot.status.pid):
            before, self._history = None, {}
        self._before = snapshot
        peers = snapshot.status.peers
        names = {peer.name for peer in peers}
        kept = {name: row for name, row in self._history.items() if name in names}
        self._history = {**kept, **snapshot.history}
        seconds = 0.0 if before is None else snapshot.at - before.at
        was = {} if before is None else {peer.name: peer for peer in before.status.peers}
        rows = [_row(peer, was.get(peer.name), seconds, self._history.get(peer.name)) for peer in peers]
        dropping: dict[str, float] = {}
        if before is not None:
            dropping = _grown(snapshot.status.drops, before.status.drops, seconds)
        totals = _total(row.received for row in rows), _total(row.sent for row in rows)
        return Picture(snapshot, rows, totals, dropping)


class Model:
    """The part of the last picture that is shown."""

    def __init__(self) -> None:
        self.picture: Picture | None = None
        self.rows: list[Row] = []  # sorted and filtered
        self.services: Sequence[Mapping[str, Any]] = ()
        self.events: list[Mapping[str, Any]] = []
        self.order, self.is_reversed, self.wanted = "traffic", False, ""

    def take(self, picture: Picture) -> None:
        """Show *picture* from now on."""
        self.picture = picture
        if picture.snapshot.services is not None:
            self.services = picture.snapshot.services
        self.hear(picture)
        self.arrange()

    def hear(self, picture: Picture) -> None:
        """Take only the events of *picture*."""
        self.events = [*self.events, *picture.snapshot.events][-EVENTS:]

    def arrange(self) -> None:
        """Sort and filter the rows again."""
        wanted = self.wanted.casefold()
        everything = () if self.picture is None else self.picture.rows
        found = [row for row in everything if not wanted or wanted in _searched(row)]
        self.rows = sorted(found, key=ORDERS[self.order], reverse=self.is_reversed)

    def next_order(self) -> None:
        """Sort by the next of ORDERS."""
        names = list(ORDERS)
        self.order = names[(names.index(self.order) + 1) % len(names)]
        self.arrange()

    def counts(self) -> dict[str, int]:
        """Return how many peers are in each state, those in trouble first."""
        found: dict[str, int] = {}
        everything = () if self.picture is None else self.picture.rows
        for row in sorted(everything, key=lambda row: -row.severity):
            found[row.state] = found.get(row.state, 0) + 1
        return found


def _row(
    peer: PeerStatus, before: PeerStatus | None, seconds: float, history: Mapping[str, Any] | None
) -> Row:
    past = history or {}
    trips, losses = past.get("round_trip_seconds") or (), past.get("loss_ratio") or ()
    return Row(
        peer.name,
        peer.state or "?",
        peer.encapsulation,
        peer.endpoint,
        tuple(peer.subnets),
        _rate(peer.rx_bytes, None if before is None else before.rx_bytes, seconds),
        _rate(peer.tx_bytes, None if before is None else before.tx_bytes, seconds),
        next((each for each in reversed(trips) if each is not None), None),
        _mean(losses[-RECENT:]),
        peer.path_mtu,
        None
        if before is None or peer.drops is None
        else sum(_grown(peer.drops, before.drops, seconds).values()),
        peer.drops or {},
        tuple(peer.notes),
        tuple(_both(past)),
    )


def _both(history: Mapping[str, Any]) -> list[float | None]:
    """Return the traffic in both directions in each sample."""
    sent, received = (
        history.get("sent_bytes_per_second") or (),
        history.get("received_bytes_per_second") or (),
    )
    return [
        None if one is None or other is None else one + other
        for one, other in zip(sent, received, strict=False)
    ]


def _rate(now: int | None, before: int | None, seconds: float) -> float | None:
    """Return the growth of a counter per second; None if it is not known, or was reset."""
    if now is None or before is None or seconds <= 0 or now < before:
        return None
    return (now - before) / seconds


def _grown(
    now: Mapping[str, int] | None, before: Mapping[str, int] | None, seconds: float
) -> dict[str, float]:
    if now is None or before is None or seconds <= 0:
        return {}
    found = {reason: (count - before.get(reason, 0)) / seconds for reason, count in now.items()}
    return dict(
        sorted(((reason, rate) for reason, rate in found.items() if rate > 0), key=lambda each: -each[1])
    )


def _total(rates: Any) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return math.fsum(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known else None


def _searched(row: Row) -> str:
    return " ".join((row.name, row.state, row.encapsulation, row.endpoint or "", *row.subnets)).casefold()


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


# As text


def rate_text(rate: float | None) -> str:
    """Return bytes per second: ``1.21 MiB/s``; a dash if not known."""
    return UNKNOWN if rate is None else f"{format_bytes(rate)}/s"


def short_rate_text(rate: float | None) -> str:
    """Return bytes per second in up to 6 columns, without their unit: ``1.21Mi``; a dash if not known."""
    return UNKNOWN if rate is None else format_bytes(rate).removesuffix("B").replace(" ", "")


def trip_text(seconds: float | None) -> str:
    """Return a round trip: ``0.412 ms``."""
    if seconds is None:
        return UNKNOWN
    milliseconds = seconds * 1000
    return f"{milliseconds:.{3 if milliseconds < 1 else 1 if milliseconds < 100 else 0}f} ms"


def loss_text(ratio: float | None) -> str:
    """Return a loss in percent: ``0%``, ``2.5%``."""
    if ratio is None:
        return UNKNOWN
    percent = ratio * 100
    return f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.1f}%"


def sparkline(values: Sequence[float | None], width: int, *, is_plain: bool = False) -> str:
    """Return the last *width* values as bars, relative to the largest; blanks for unknown values."""
    bars = PLAIN_BARS if is_plain else BARS
    shown = list(values)[-width:] if width > 0 else []
    largest = max((each for each in shown if each is not None), default=0.0)
    drawn = "".join(
        " "
        if each is None
        else bars[min(len(bars) - 1, int(each / largest * len(bars)))]
        if largest
        else bars[0]
        for each in shown
    )
    return drawn.rjust(max(width, 0))
