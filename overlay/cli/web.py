"""``overlay web``: serve a page that shows the node in a browser."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import agent_path, running_interfaces
from overlay.cli.exits import Failure
from overlay.cli.options import interface_option
from overlay.cli.output import show, warn
from overlay.cli.terminated import cleaned_up

if TYPE_CHECKING:
    from peers.listening import Listening

# Ours
DEFAULT_PLACE = "127.0.0.1:8051"
EXAMPLE = f"{DEFAULT_PLACE} or /run/overlay/page.sock"


class ListeningPlace(click.ParamType):  # type: ignore[type-arg]  # older releases of click have no argument here
    """Where to listen: an address with a port, or the path of a unix socket."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Listening:
        """Return a place.  Fails for anything else."""
        from peers.listening import parse_place

        try:
            return parse_place(value, EXAMPLE)
        except ValueError as error:
            self.fail(f"{value} {error}", param, ctx)


@click.command("web", epilog="Example: overlay web --listen 127.0.0.1:8051")
@interface_option
@click.option(
    "--listen",
    type=ListeningPlace(),
    default=DEFAULT_PLACE,
    metavar="ADDRESS:PORT",
    help="The address and port for browsers, or the path of a unix socket for a proxy.",
)
@click.option(
    "--token",
    "wants_token",
    is_flag=True,
    help="Require a token on a loopback address, too, because every user of this host can reach it.",
)
@click.pass_context
def command(ctx: click.Context, interface: str, listen: Listening, wants_token: bool) -> None:
    """Serve a page that shows this node, its peers, services and events, until Ctrl-C.

    The page changes nothing.  At a loopback address, browsers on this host can reach it, and others through `ssh -L
    8051:127.0.0.1:8051 HOST`.  At any other address it requires a token, which is part of the URL that this command
    prints; a new one is made at each start.  HTTP is not encrypted: choose an address on the overlay.

    The process that serves browsers has no privileges.  It keeps running when the agent restarts.
    """
    from overlay.doors.webserver import make_token, run
    from overlay.host.control import refuse_unless_permitted
    from overlay.host.sockets.listening import listening

    refuse_unless_permitted(agent_path(ctx, interface))

    token = make_token() if wants_token or not listen.is_local else None
    with cleaned_up(), listening(listen) as listener:

        def begun(notes: list[str]) -> None:
            for note in notes:
                warn(note)
            if interface not in running_interfaces(ctx):
                warn(
                    f"no agent runs for {interface} yet: the page shows it once there is one; see --interface"
                )
            show(describe(listen, token))

        run(listener, listen, token, lambda: agent_path(ctx, interface), begun)
    raise Failure("the process that serves the page has ended: its last output is above")


def describe(place: Listening, token: str | None) -> str:
    """Return the URL of the page; a *token* is in the part that browsers do not send."""
    from peers.listening import UnixPlace

    fragment = "" if token is None else f"#token={token}"
    if isinstance(place, UnixPlace):
        return f"{place}{f'  {fragment}' if fragment else ''}"
    return f"http://{place}/{fragment}"
