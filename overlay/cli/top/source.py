"""Where ``overlay top`` has its numbers from: the questions that it asks the agent, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.cli.agents import ask, ask_in_pieces, read_status
from overlay.cli.exits import Failure
from overlay.cli.top.model import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

# Ours
INTERVAL = 1.0  # seconds between two looks
SHARE = (
    4.0  # after a look that took long, so many times as long passes until the next: the agent has other work
)
HISTORY_INTERVAL = 10.0  # seconds; the agent has no newer samples before
HISTORIES = 64  # peers at a time whose history is asked for: those on the screen
SAMPLES = 60  # of each: ten minutes
EVENTS_FIRST, EVENTS_MOST = 50, 200  # events that are asked for at first, and later


class Source:
    """Asks one agent.  It blocks; one thread at a time may use it."""

    def __init__(self, ctx: click.Context, interface: str, now: Callable[[], float]) -> None:
        self._ctx, self.interface, self._now = ctx, interface, now
        self._events: dict[str, Any] = {}
        self._told: dict[str, float] = {}  # when the history of a peer was told
        self.pause = INTERVAL
        """How long to wait until the next look."""

    def read(self, visible: Sequence[str]) -> Snapshot:
        """Return how things stand, with the history of the peers that are *visible*.

        Raises HostError if the agent does not answer, Failure if it refuses or is of another version.
        """
        began = self._now()
        status = read_status(self.interface, ask(self._ctx, self.interface, op="status"))
        at = self._now()
        services = None
        if status.services:
            services = ask(self._ctx, self.interface, op="services").get("services")
        events, has_restarted = self._read_events()
        if has_restarted:
            self._told.clear()
        history = self._read_history(visible, at)
        self.pause = max(INTERVAL, SHARE * (self._now() - began))
        return Snapshot(at, status, services if status.services else (), events, history, has_restarted)

    def _read_events(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the events since the last look, and whether the agent is another one by now."""
        before, rows = self._events, list[Any]()
        most = EVENTS_MOST if before else EVENTS_FIRST
        answer = self._ask_events(rows, before.get("last", 0), most)
        has_restarted = bool(before) and answer.get("run") != before.get("run")
        if has_restarted:
            rows.clear()
            answer = self._ask_events(rows, 0, most)
        self._events = answer
        return rows, has_restarted

    def _ask_events(self, rows: list[Any], since: int, most: int) -> dict[str, Any]:
        return ask_in_pieces(self._ctx, self.interface, rows.extend, op="events", since=since, limit=most)

    def _read_history(self, visible: Sequence[str], at: float) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        due = [name for name in visible if at - self._told.get(name, -HISTORY_INTERVAL) >= HISTORY_INTERVAL]
        for name in due[:HISTORIES]:
            rows: list[Any] = []
            try:
                ask_in_pieces(
                    self._ctx, self.interface, rows.extend, op="history", name=name, samples=SAMPLES
                )
            except Failure:  # the peer was removed just now
                continue
            self._told[name] = at
            found |= {row["name"]: row for row in rows if row.get("name") == name}
        return found
