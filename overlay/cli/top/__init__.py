"""``overlay top``: a live view of this node in the terminal."""

# ruff: noqa: PLC0415  the library that draws takes half a second to load

from __future__ import annotations

import os
import sys

import click

from overlay.cli.exits import Failure
from overlay.cli.options import interface_option
from overlay.cli.surroundings import Surroundings
from overlay.cli.terminated import cleaned_up


@click.command("top", epilog="Example: overlay top")
@interface_option
@click.pass_context
def command(ctx: click.Context, interface: str) -> None:
    """Watch this node and its peers, live.

    Shows the peers with their rates, round trip, loss and path MTU, services, and events as they happen.  Keys are
    shown at the bottom; ? explains them.  It continues when the agent restarts.
    """
    streams = (sys.stdin, sys.stdout, sys.stderr)  # the library draws on the last of them
    if not all(each.isatty() for each in streams) or os.environ.get("TERM", "dumb") == "dumb":
        raise Failure(
            "overlay top needs a terminal: elsewhere use `overlay status --watch`, or `overlay status --json`"
        )
    from overlay.cli.top.app import Top
    from overlay.cli.top.source import Source

    source = Source(ctx, interface, Surroundings.of(ctx).now)
    first = source.read(())  # without an agent this fails before the screen changes
    top = Top(source, first, is_plain=not _has_bars(sys.stdout.encoding))
    with cleaned_up():
        top.run(mouse=False)  # selecting and copying in the terminal keeps working
    if top.failure is not None:
        raise Failure(top.failure)


def _has_bars(encoding: str | None) -> bool:
    """Return whether a terminal with that *encoding* has the characters of bars."""
    from overlay.cli.top.model import BARS

    try:
        BARS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
