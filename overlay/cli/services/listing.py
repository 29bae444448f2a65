"""``overlay services [NAME]``: services and their servers, as the agent of a director sees them."""

from __future__ import annotations

import itertools
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask
from overlay.cli.exits import Failure
from overlay.cli.options import interface_option
from overlay.cli.output import show, show_json
from overlay.cli.services.rendering import render
from overlay.cli.surroundings import Surroundings
from overlay.errors import HostError
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

# Ours
CLEAR = "\x1b[H\x1b[2J"
INTERVAL = 1.0  # seconds
TOLD = ("services", "notes", "rates_over_s", "drops")  # of an answer, as JSON has them


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
    hand.  ACTIVE connections are open.  Rates are those of the last seconds, as long as the last line says.

    What is not known is ? here and null in the JSON.  The exit code is 1 if the process that carries packets did not
    report its counters.
    """
    for turn in itertools.count():
        if turn:
            Surroundings.of(ctx).sleep(INTERVAL)
        try:
            answer = ask_services(ctx, interface, op="services", name=name)
        except HostError as error:
            if not turn:
                raise
            click.echo(printable(str(error)), err=True)  # it may come back, as after an upgrade
            continue
        if any(key not in answer for key in TOLD):
            raise Failure(f"the agent of {interface} is of another version than this command: start it again")
        _show(answer, as_json=as_json, watch=watch, is_first=not turn)
        if not watch:
            break
    if not answer.get("is_complete"):
        raise Failure(f"the forwarder of {interface} did not report its counters")


def ask_services(ctx: click.Context, interface: str, **message: Any) -> dict[str, Any]:
    """Return the agent's answer.  Raises Misuse for a name that is not known, Failure for another refusal."""
    return ask(ctx, interface, **message)


def _show(answer: Mapping[str, Any], *, as_json: bool, watch: bool, is_first: bool) -> None:
    if as_json:
        show_json({key: answer[key] for key in TOLD}, compact=watch)
        return
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    show(render(answer, width), CLEAR if watch and is_terminal else "" if is_first else "\n")
