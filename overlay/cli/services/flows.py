"""``overlay services --flows [NAME]``: the flows of a director that match filters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overlay.cli.agents import ask_in_pieces
from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import Number
from overlay.cli.output import show
from overlay.cli.schema import note_told
from overlay.documents import SCHEMA, renamed
from overlay.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Command = TypeVar("Command", bound="Callable[..., Any]")

# Ours
STATES = (
    "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "TIME_WAIT", "CLOSE", "MIDSTREAM", "DATAGRAM", "UDP"
)  # fmt: skip
PROTOCOLS = ("tcp", "udp", "sctp")
LIMIT, MOST = 1000, 1_000_000
COLUMNS = ("PROTOCOL", "CLIENT", "SERVICE", "STATE", "SERVER", "IDLE", "LEFT")
RIGHT = {"IDLE", "LEFT"}  # aligned so
LEFT_OUT = ("LEFT", "PROTOCOL", "IDLE")  # on a narrow terminal; the first one first
GAP = "  "
GONE = "-"  # the server of a flow that ends with its next packet
FILTERS = ("client", "server", "states", "protocol", "port", "limit")


def flow_options(command: Command) -> Command:
    """Give *command* the options that filter flows."""
    options = (
        click.option("--flows", "has_flows", is_flag=True, help="Show flows: connections, and UDP clients."),
        click.option("--client", metavar="PREFIX", help="Flows of clients in this network only."),
        click.option("--server", metavar="NAME", help="Flows of this server only."),
        click.option(
            "--state",
            "states",
            type=click.Choice(STATES, case_sensitive=False),
            multiple=True,
            help="Flows in this state only; may be repeated.",
        ),
        click.option("--protocol", type=click.Choice(PROTOCOLS), help="Flows of this protocol only."),
        click.option("--port", type=Number(0, 65_535), help="Flows to this port of the service only."),
        click.option("--limit", type=Number(1, MOST), help=f"The most flows to show; {LIMIT} by default."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def refuse_filters(filters: Mapping[str, Any], remedy: str = "--flows") -> None:
    """Raise Misuse for a filter if no flows are shown; *remedy* is the option that shows them."""
    for name in FILTERS:
        if filters[name] not in {None, ()}:
            option = "state" if name == "states" else name
            raise Misuse(f"--{option} is about flows: add {remedy}")


def ask_flows(
    ctx: click.Context,
    interface: str,
    filters: Mapping[str, Any],
    take: Callable[[list[Any]], object],
) -> bool:
    """Pass the flows that match *filters* to *take*, and return whether there are more than the limit.

    Raises Failure if not all are known.
    """
    asked = {key: value for key, value in filters.items() if value not in {None, ()}}
    answer = ask_in_pieces(ctx, interface, take, op="flows", **asked)
    if not answer.get("is_complete"):
        raise Failure(f"the forwarder of {interface} did not report its flows")
    return bool(answer.get("has_more"))


def show_flows(
    ctx: click.Context,
    interface: str,
    filters: Mapping[str, Any],
    *,
    as_json: bool,
    prefix: str,
    width: int | None = None,
) -> None:
    """Print flows, or none if not all are known; in lines of at most *width* columns if possible, None for any."""
    if as_json:
        lines: list[str] = []
        has_more = ask_flows(
            ctx, interface, filters, lambda rows: lines.extend(json.dumps(renamed(row)) for row in rows)
        )
        rows = ",\n".join(f"  {line}" for line in lines)
        show(f'{{"schema": {SCHEMA}, "flows": [\n{rows}\n], "has_more": {json.dumps(has_more)}}}')
        note_told()
        return
    table = FlowTable()
    more = ask_flows(ctx, interface, filters, table.take)
    last = ["there are more flows: filter them, or raise --limit"] if more else []
    shown = table.lines(width)
    show("\n".join([*shown, *last]) if shown else "there are no such flows", prefix)


class FlowTable:
    """Flows in columns.  Each becomes text at once: a million objects would take a gigabyte."""

    def __init__(self) -> None:
        self._rows: list[str] = []
        self._widths = [len(title) for title in COLUMNS]

    def take(self, flows: Iterable[Mapping[str, Any]]) -> None:
        """Append a row for each of *flows*."""
        for flow in flows:
            cells = _cells(flow)
            self._widths = list(map(max, self._widths, map(len, cells)))
            self._rows.append("\t".join(cells))

    def lines(self, width: int | None) -> list[str]:
        """Return the header and the rows, with as many columns as fit into *width*; nothing without a row."""
        if not self._rows:
            return []
        columns = list(range(len(COLUMNS)))
        for title in LEFT_OUT:
            if width is None or sum(self._widths[each] + len(GAP) for each in columns) - len(GAP) <= width:
                break
            columns.remove(COLUMNS.index(title))
        return [self._line(row.split("\t"), columns) for row in ["\t".join(COLUMNS), *self._rows]]

    def _line(self, cells: Sequence[str], columns: Iterable[int]) -> str:
        padded = (
            cells[each].rjust(self._widths[each])
            if COLUMNS[each] in RIGHT
            else cells[each].ljust(self._widths[each])
            for each in columns
        )
        return GAP.join(padded).rstrip()


def _cells(flow: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        flow["protocol"],
        _at(flow["client"], flow["client_port"]),
        f"{flow['service']} {_at(flow['address'], flow['port'])}",
        flow["state"],
        flow["server"] or GONE,
        format_duration(flow["idle_s"]),
        format_duration(flow["left_s"]),
    )


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
