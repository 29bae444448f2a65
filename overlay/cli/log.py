"""``overlay log``: show the last events that the agent keeps."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from overlay.cli import colours
from overlay.cli.agents import ask_in_pieces
from overlay.cli.options import LOG_LEVELS, Number, interface_option, json_option, peer_argument
from overlay.cli.output import show, show_json, warn
from overlay.cli.surroundings import Surroundings
from overlay.documents import tell_events
from overlay.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Ours
NUMBER, MOST = 20, 5000  # events shown at first
AT_ONCE = 5000  # of those since the last question
FOLLOW_INTERVAL = 0.5  # seconds between two questions


@click.command("log", epilog="Example: overlay log tokyo --follow")
@peer_argument(required=False)
@interface_option
@click.option(
    "-n", "--number", type=Number(0, MOST), default=NUMBER, help="Show this many of the last events."
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing events as they happen, until Ctrl-C.")
@click.option(
    "--level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="info",
    help="Show events of this level and above.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, peer: str | None, interface: str, number: int, follow: bool, level: str, as_json: bool
) -> None:
    """Show the last events of the agent, or those about PEER.

    PEER is the name of a peer, even of one that has been removed, or an address.  The agent keeps the last 1000 events
    of the level info and the last 1000 above it, whatever it writes to its log, and the last 500 of the level debug,
    which it has only after `overlay log-level debug`.  They end with the agent.

    With --follow it survives a restart of the agent.  With --json and --follow each event is one line.
    """
    log = _Log(ctx, interface, {"level": level, **({} if peer is None else {"name": peer})})
    events = log.read(number)
    if not follow:
        if as_json:
            show_json(tell_events(log.answer, events))
        else:
            _show(events)
        return
    is_away = False
    for turn in itertools.count():
        if turn > 0:
            Surroundings.of(ctx).sleep(FOLLOW_INTERVAL)
            try:
                events = log.read(AT_ONCE)
            except HostError as error:
                if not is_away:
                    warn(f"{error}; waiting for it")
                is_away = True
                continue
            is_away = False
            if log.has_restarted:
                warn(f"another agent of {interface} has started: its events follow")
            elif log.answer.get("is_complete") is False:
                warn("more events occurred than the agent keeps: some are missing here")
        if as_json:
            for event in events:
                show_json(event, compact=True)
        else:
            _show(events)


class _Log:
    """The events of an agent, read from the end of the last answer on."""

    def __init__(self, ctx: click.Context, interface: str, asked: dict[str, Any]) -> None:
        self._ctx, self._interface, self._asked = ctx, interface, asked
        self.answer: dict[str, Any] = {}
        self.has_restarted = False

    def read(self, most: int) -> list[Any]:
        """Return at most *most* new events.  Raises HostError without an answer, Failure for a refusal."""
        before, rows = self.answer, list[Any]()
        self.answer = self._ask(rows, most, before.get("last", 0))
        self.has_restarted = bool(before) and before.get("run") != self.answer.get("run")
        if self.has_restarted:  # its numbers start again
            rows.clear()
            self.answer = self._ask(rows, most, 0)
        return rows

    def _ask(self, rows: list[Any], most: int, since: int) -> dict[str, Any]:
        return ask_in_pieces(
            self._ctx, self._interface, rows.extend, op="events", limit=most, since=since, **self._asked
        )


def _show(events: Iterable[dict[str, Any]]) -> None:
    paint = colours.paint_event if colours.are_wanted() else str
    for event in events:
        show(format_event(event), paint=paint)


def format_event(event: dict[str, Any]) -> str:
    """Return *event* as a line of the log: ``2026-01-31T12:00:00+01:00 INFO ready ...``."""
    at = datetime.fromtimestamp(float(event["timestamp_seconds"])).astimezone().isoformat(timespec="seconds")
    return f"{at} {str(event['level']).upper()} {event['text']}"
