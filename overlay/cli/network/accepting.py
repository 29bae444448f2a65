"""``overlay network accept``: follow an etcd with another history."""

from __future__ import annotations

import click

from overlay.cli.agents import ask
from overlay.cli.options import interface_option
from overlay.cli.output import show


@click.command("accept", epilog="Example: overlay network accept")
@interface_option
@click.pass_context
def command(ctx: click.Context, interface: str) -> None:
    """Make the agent of this host follow etcd again, after it was restored from a backup or replaced by another.

    If etcd's history contradicts what an agent knows, the agent keeps its table, because nodes may be missing in the
    new one, or have come back.  Look at `overlay network show` first.
    """
    history = ask(ctx, interface, op="accept_store").get("history")
    show(f"the agent follows etcd again, although {history}" if history else "the agent already follows etcd")
