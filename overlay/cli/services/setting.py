"""``overlay services drain|enable|disable|weight``: temporary manual settings."""

from __future__ import annotations

from typing import Any

import click

from overlay.cli.exits import Failure
from overlay.cli.options import Number, interface_option
from overlay.cli.output import show
from overlay.cli.services.elsewhere import name_some
from overlay.cli.services.listing import ask_services
from peers.service import MOST_WEIGHT

HOLDS = (
    "It applies at all directors of the service, until `enable` undoes it, the peers file changes that server, or no "
    "director is running. The exit code is 1 if another director has not confirmed it."
)
LATER = "a running director with the same peers file adopts it once it can be reached"
REPEAT = "repeat the command there"
SERVER = click.argument("server", metavar="SERVICE/SERVER")


def _set(ctx: click.Context, interface: str, server: str, **setting: Any) -> None:
    answer = ask_services(ctx, interface, op="set_server", name=server, **setting)
    changed = answer["server"]
    show(f"{server} is {changed['state']}, with a weight of {changed['effective_weight']}")
    missed = []
    if answer.get("unconfirmed"):
        missed.append(f"not confirmed by {name_some(answer['unconfirmed'])}: {LATER}")
    if answer.get("deaf"):
        missed.append(
            f"not sent to {name_some(answer['deaf'])}, whose tunnel carries no in-band messages: {REPEAT}"
        )
    if missed:
        raise Failure(f"set here, but {'; and '.join(missed)}")


def _named(what: str, explanation: str) -> click.Command:
    def run(ctx: click.Context, interface: str, server: str) -> None:
        _set(ctx, interface, server, what=what)

    run.__doc__ = explanation + (f"\n\n{HOLDS}")
    return click.command(what)(SERVER(interface_option(click.pass_context(run))))


drain = _named("drain", "Give a server no new connections; it keeps the existing ones.")
disable = _named("disable", "Give a server no new connections, and end the existing ones.")
enable = _named("enable", "Undo what was set for a server by hand.")


@click.command("weight", help=f"Set the weight of a server; 0 means no new connections.\n\n{HOLDS}")
@SERVER
@click.argument("weight", type=Number(0, MOST_WEIGHT))
@interface_option
@click.pass_context
def weight(ctx: click.Context, server: str, weight: int, interface: str) -> None:
    _set(ctx, interface, server, what="weight", weight=weight)
