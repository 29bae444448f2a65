"""``overlay services drain|enable|disable|weight``: settings by hand, for a while."""

from __future__ import annotations

from typing import Any

import click

from overlay.cli.options import interface_option
from overlay.cli.output import show
from overlay.cli.services.listing import ask_services
from peers.service import MOST_WEIGHT

SERVER = click.argument("server", metavar="SERVICE/SERVER")


def _set(ctx: click.Context, interface: str, server: str, **setting: Any) -> None:
    told = ask_services(ctx, interface, op="set_server", name=server, **setting)["server"]
    show(f"{server} is {told['state']}, with a weight of {told['effective_weight']}")


def _named(what: str, explanation: str) -> click.Command:
    def run(ctx: click.Context, interface: str, server: str) -> None:
        _set(ctx, interface, server, what=what)

    run.__doc__ = explanation + (
        "\n\nIt holds at this director until its agent stops, or the peers file changes that server."
    )
    return click.command(what)(SERVER(interface_option(click.pass_context(run))))


drain = _named("drain", "Give a server no new connections; it keeps those that it has.")
disable = _named("disable", "Give a server no connections, and end those that it has.")
enable = _named("enable", "Take back what was set for a server by hand.")


@click.command("weight")
@SERVER
@click.argument("weight", type=click.IntRange(0, MOST_WEIGHT))
@interface_option
@click.pass_context
def weight(ctx: click.Context, server: str, weight: int, interface: str) -> None:
    """Give a server another weight, 0 for no new connections.

    It holds at this director until its agent stops, or the peers file changes that server.
    """
    _set(ctx, interface, server, what="weight", weight=weight)
