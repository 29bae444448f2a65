"""``overlay services [NAME]``: services and their servers, as the agent of a director sees them."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask
from overlay.cli.exits import Failure
from overlay.cli.options import interface_option
from overlay.cli.output import format_bytes, format_table, show, show_json
from overlay.cli.surroundings import Surroundings
from overlay.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

# Ours
CLEAR = "\x1b[H\x1b[2J"
INTERVAL = 1.0  # seconds
UNKNOWN = "?"
HEADER = ("SERVER", "STATE", "WEIGHT", "ACTIVE", "INACTIVE", "PACKETS", "BYTES", "SINCE", "REASON")


@click.command("list")
@click.argument("name", required=False)
@interface_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Print again every second, until interrupted.")
@click.pass_context
def command(ctx: click.Context, name: str | None, interface: str, as_json: bool, watch: bool) -> None:
    """Show services, or the service NAME, with their servers.

    A server is up, down, drained (it keeps its connections and gets no more), disabled, or checking (no check has ended
    yet).  WEIGHT is what it is given now, and in parentheses what it will have, or an asterisk for one that was set by
    hand.  ACTIVE connections are open; what is not known is ? here and null in the JSON, and the exit code is 1.
    """
    for turn in itertools.count():
        answer = ask_services(ctx, interface, op="services", name=name)
        if as_json:
            show_json({"services": answer["services"]}, compact=watch)
        else:
            prefix = CLEAR if watch and sys.stdout.isatty() else "\n" if turn else ""
            show(render(answer["services"]), prefix)
        if not watch:
            break
        Surroundings.of(ctx).sleep(INTERVAL)
    if not answer.get("is_complete"):
        raise Failure(f"the forwarder of {interface} did not report its counters")


def ask_services(ctx: click.Context, interface: str, **message: Any) -> dict[str, Any]:
    """Return the agent's answer.  Raises Misuse for a name that is not known, Failure for another refusal."""
    return ask(ctx, interface, **message)


def render(services: list[Mapping[str, Any]]) -> str:
    """Return *services* as text."""
    if not services:
        return "there are no services"
    return "\n\n".join(map(_render, services))


def _render(service: Mapping[str, Any]) -> str:
    where = f"{','.join(service['protocols'])} {', '.join(service['addresses'])}"
    ports = ",".join(service["ports"]) or "every"
    reason = f" ({service['reason']})" if service["reason"] else ""
    head = f"{service['name']}: {service['state']}{reason}\n  {where} port {ports}, {service['scheduler']}"
    if service["state"] == "elsewhere":
        return head
    if not service["servers"]:
        return f"{head}\n  no servers"
    rows = [_cells(server) for server in service["servers"]]
    table = format_table(HEADER, rows, right=range(2, 7))
    return "\n".join([head, *(f"  {line}" for line in table.split("\n"))])


def _cells(server: Mapping[str, Any]) -> list[str]:
    weight = f"{server['effective_weight']}"
    if server["weight"] != server["effective_weight"]:
        weight += f" ({server['weight']})"
    if server["set_by_hand"]:
        weight += "*"
    size = server["bytes"]
    return [
        server["name"],
        server["state"],
        weight,
        *(_number(server[key]) for key in ("active_flows", "inactive_flows", "packets")),
        UNKNOWN if size is None else format_bytes(size),
        format_duration(server["since_s"]),
        server["reason"],
    ]


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)
