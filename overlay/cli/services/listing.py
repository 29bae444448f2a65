"""``overlay services [NAME]``: services and their servers, as the agent of a director sees them."""

from __future__ import annotations

import itertools
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask
from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import interface_option, json_option
from overlay.cli.output import show, show_json
from overlay.cli.services import flows, lookalike
from overlay.cli.services.rendering import render
from overlay.cli.surroundings import Surroundings
from overlay.documents import OF_SERVICES, tell_services
from overlay.errors import HostError
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

# Ours
CLEAR = "\x1b[H\x1b[2J"
INTERVAL = 1.0  # seconds


@click.command("list")
@click.argument("name", required=False)
@interface_option
@json_option
@click.option("--watch", is_flag=True, help="Print again every second, until interrupted.")
@flows.flow_options
@lookalike.lookalike_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    name: str | None,
    interface: str,
    as_json: bool,
    watch: bool,
    has_flows: bool,
    is_lookalike: bool,
    **options: Any,
) -> None:
    """Show services, or the service NAME, with their servers.

    A server is up, down, drained (it keeps its connections and gets no new ones), disabled, or checking (no check has
    ended yet).  WEIGHT is the weight used now, with the later one in parentheses, or an asterisk if it was set by hand.
    ACTIVE connections are open.  Rates cover the last seconds; the last line says how many.

    Unknown values are ? here and null in the JSON.  The exit code is 1 if the process that carries packets did not
    report its counters.

    With --flows, the flows that this director knows are shown; with maglev, sh and dh only the recent ones.

    With --ipvsadm, the output is what `ipvsadm -Ln` would print, for programs that read that.
    """
    filters = {"name": name} | {key: options.pop(key) for key in flows.FILTERS}
    if sum([has_flows, is_lookalike]) > 1 or (is_lookalike and as_json):
        raise Misuse(f"--ipvsadm has one format: remove {'--flows' if has_flows else '--json'}")
    view: Callable[[str], None]
    if is_lookalike:
        view = partial(
            lookalike.show_lookalike, ctx, interface, lookalike.ListingOptions(name, filters, **options)
        )
    else:
        lookalike.refuse_options(options)
        if has_flows:
            view = partial(_show_flows, ctx, interface, filters, as_json)
        else:
            flows.refuse_filters(filters)
            view = partial(_show_services, ctx, interface, name, as_json, watch)
    _repeat(ctx, view, watch=watch, is_text=not as_json)


def _repeat(ctx: click.Context, view: Callable[[str], None], *, watch: bool, is_text: bool) -> None:
    """Print the text of *view* once, or every second; *view* gets the prefix of the output."""
    is_terminal = is_text and sys.stdout.isatty()
    for turn in itertools.count():
        if turn:
            Surroundings.of(ctx).sleep(INTERVAL)
        try:
            view(CLEAR if watch and is_terminal else "\n" if turn and is_text else "")
        except HostError as error:
            if not turn:
                raise
            click.echo(printable(str(error)), err=True)  # it may come back, for example after an upgrade
        except Failure as error:
            if not watch or isinstance(error, Misuse):
                raise
            click.echo(f"Error: {error.format_message()}", err=True)
        if not watch:
            break


def ask_services(ctx: click.Context, interface: str, **message: Any) -> dict[str, Any]:
    """Return the agent's answer.  Raises Misuse for an unknown name, Failure for another refusal."""
    return ask(ctx, interface, **message)


def _show_services(
    ctx: click.Context, interface: str, name: str | None, as_json: bool, watch: bool, prefix: str
) -> None:
    answer = ask_services(ctx, interface, op="services", name=name)
    if any(key not in answer for key in OF_SERVICES):
        raise Failure(f"the agent of {interface} is of another version than this command: start it again")
    if as_json:
        show_json(tell_services(answer), compact=watch)
    else:
        show(render(answer, _width()), prefix)
    if not answer.get("is_complete"):
        raise Failure(f"the forwarder of {interface} did not report its counters")


def _show_flows(
    ctx: click.Context, interface: str, filters: dict[str, Any], as_json: bool, prefix: str
) -> None:
    flows.show_flows(ctx, interface, filters, as_json=as_json, prefix=prefix, width=_width())


def _width() -> int | None:
    """Return the columns of the terminal; None if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
