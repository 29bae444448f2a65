"""``overlay status``: show what the agent knows of this node and its peers."""

from __future__ import annotations

import itertools
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask, read_status
from overlay.cli.exits import Failure
from overlay.cli.options import interface_option, json_option
from overlay.cli.output import show, show_json
from overlay.cli.overview import fit, render, troubled_first
from overlay.cli.surroundings import Surroundings
from overlay.errors import HostError
from overlay.text import printable

if TYPE_CHECKING:
    from overlay.cli.agents import Status

# Ours
WATCH_INTERVAL = 1.0  # seconds
CLEAR = "\033[H\033[J"  # cursor home, erase below (ECMA-48)


@click.command("status", epilog="Example: overlay status --watch")
@interface_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_context
def command(ctx: click.Context, interface: str, as_json: bool, watch: bool) -> None:
    """Show this node and its peers.

    A peer is up (its tunnel works), silent (packets were sent to it, and it has answered nothing for 15 seconds),
    connecting (a handshake runs), idle (nothing to send since the last session ended), unresolved (its endpoint is a
    name that has no address), unconfirmed (handshakes are answered but lead to no common keys, probably because the
    preshared keys differ) or unreachable (it has not answered a handshake for 90 seconds).  For an unencrypted peer the
    state is not known; its encapsulation is in parentheses.

    RECEIVED is when the last message of the peer arrived.  MTU is the largest packet that is sent to it: that of the
    device, unless probes or the kernel have found that the path carries less.  MACS, with a tap, is how many Ethernet
    addresses were seen at the peer in the last five minutes.

    MAC addresses are shown where packets travel in Ethernet frames, to be configured at a far end that is not an agent.

    Dropped packets are counted by reason, for the node and for each peer.  With --watch, reasons whose counters grow and
    peers in trouble come first.

    While the process that carries packets hangs, values that are not known are ? here and null in the JSON, and the exit
    code is 1.

    On a terminal that is too narrow, columns are left out and named; --json has everything.
    """
    answer = ask(ctx, interface, op="status")
    if not watch:
        _show(answer, interface, as_json)
        if (answer.get("status") or {}).get("is_complete") is False:
            raise Failure(
                f"the status of {interface} is incomplete: its forwarder did not report its counters"
            )
        return
    is_terminal = sys.stdout.isatty() and not as_json
    before: Status | None = None
    for turn in itertools.count():
        if turn > 0:
            Surroundings.of(ctx).sleep(WATCH_INTERVAL)
            try:
                answer = ask(ctx, interface, op="status")
            except HostError as error:  # it may come back: an agent that is started again keeps its interface
                click.echo(f"{CLEAR if is_terminal else ''}{printable(str(error))}", err=True)
                continue
        if as_json:
            show_json(answer.get("status"), compact=True)
            continue
        status = troubled_first(read_status(interface, answer))
        if is_terminal:
            show(fit(status, *shutil.get_terminal_size(), before), CLEAR)
        else:
            show(render(status, None, before) + "\n")
        before = status


def _show(answer: dict[str, Any], interface: str, as_json: bool) -> None:
    if as_json:
        show_json(answer.get("status"))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        show(render(read_status(interface, answer), width))
