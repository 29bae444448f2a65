"""The questions that ``overlay top`` asks the agent, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.cli.agents import ask, ask_in_pieces, read_status
from overlay.cli.exits import Failure
from overlay.cli.top.model import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

# Ours
INTERVAL = 1.0  # seconds between two updates
SHARE = 4.0  # after a slow update, the pause is this many times as long: the agent has other work
HISTORY_INTERVAL = 10.0  # seconds; the agent does not sample more often
HISTORIES = 64  # peers whose history is asked for at a time: those on the screen
SAMPLES = 60  # of each peer: ten minutes
EVENTS_FIRST, EVENTS_MOST = 50, 200  # events that are asked for at first, and later


class Source:
    """Asks one agent.  It blocks; only one thread at a time may use it."""

    def __init__(self, ctx: click.Context, interface: str, now: Callable[[], float]) -> None:
        self._ctx, self.interface, self._now = ctx, interface, now
        self._events: dict[str, Any] = {}
        self._told: dict[str, float] = {}  # when the history of a peer was last read
        self.pause = INTERVAL
        """How long to wait until the next update."""

    def read(self, visible: Sequence[str]) -> Snapshot:
        """Return a snapshot, with the history of the peers in *visible*.

        Raises HostError if the agent does not answer, Failure if it refuses or has another version.
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
        """Return the events since the last update, and whether the agent has been replaced since."""
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
            except Failure:  # the peer was just removed
                continue
            self._told[name] = at
            found |= {row["name"]: row for row in rows if row.get("name") == name}
        return found
