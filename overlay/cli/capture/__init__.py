"""``overlay capture``: packets inside the tunnels, shown as lines, or written for Wireshark and other tools that read
pcapng.
"""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from overlay.cli.options import Number, PathName, Seconds, interface_option, peer_argument

if TYPE_CHECKING:
    from pathlib import Path

# Ours
LARGEST_SNAPLEN = 262_144  # tcpdump's, and its default
PATIENCE = 2.0  # seconds for a reader to accept the end of a capture, and again for the remaining packets


def _complete_reason(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the drop reasons that begin with *incomplete*."""
    from overlay.reasons import REASONS

    return [CompletionItem(name) for name in REASONS if name.startswith(incomplete)]


@click.command("capture", epilog="Example: overlay capture tokyo -f 'tcp port 443' -w - | wireshark -k -i -")
@peer_argument(required=False)
@interface_option
@click.option(
    "-w",
    "--write",
    metavar="FILE",
    type=PathName(allow_dash=True),
    help=(
        "Write the packets to this file in the pcapng format, or with - to standard output; without it, one line is "
        "shown for each packet."
    ),
)
@click.option(
    "-f",
    "--filter",
    "expression",
    metavar="EXPRESSION",
    help="The packets to capture, in the language of tcpdump (man pcap-filter), as in 'host 10.244.2.7 and tcp port "
    "443'.",
)
@click.option(
    "--dropped",
    is_flag=False,
    flag_value="",
    metavar="[REASON]",
    shell_complete=_complete_reason,
    help="Capture only packets that are dropped, for any reason or for this one; PEER comes before it.",
)
@click.option(
    "--outside",
    "with_outside",
    is_flag=True,
    help="Capture the datagrams of the tunnels, too, as this host's interfaces carry them.",
)
@click.option("-c", "--count", type=Number(1), metavar="N", help="End after N packets.")
@click.option(
    "-s",
    "--snaplen",
    type=Number(1, LARGEST_SNAPLEN),
    default=LARGEST_SNAPLEN,
    metavar="BYTES",
    help="Keep only the first BYTES of each packet.",
)
@click.option("--duration", type=Seconds(0.001, 1e9), metavar="SECONDS", help="End after this many seconds.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    peer: str | None,
    interface: str,
    write: Path | None,
    expression: str | None,
    count: int | None,
    duration: float | None,
    **selected: Any,
) -> None:
    """Capture packets as they are inside the tunnels, of PEER or of all.

    Each packet has the name of its peer.  A file has an interface for each direction, and a comment on each packet;
    Wireshark reads it directly.  On stderr, `capturing on` says that the capture has begun.  Ctrl-C ends it; stderr
    then says how many packets there were, and how many were missed because this command did not read them in time.  It
    delays no packets.

    Dropped packets are shown with the reason; those from the interface appear a second time for that.

    Large TCP packets are shown as the kernel hands them over, before they are cut into segments, as tcpdump does.
    """
    from overlay.cli.capture.ending import Ending
    from overlay.cli.capture.giving_way import GivingWay
    from overlay.cli.capture.opening import Selection, asked_node, open_output, open_sources
    from overlay.cli.capture.session import Limits, Session
    from overlay.host.sockets.drop_socket import DropSocket

    wanted = Selection(expression or "", **selected)
    with contextlib.ExitStack() as stack:
        hearing, reporting = DropSocket.pair()
        stack.callback(hearing.close)
        with reporting:
            node = asked_node(ctx, interface, peer, reporting, wanted)
        sources = [
            stack.enter_context(contextlib.closing(each)) for each in open_sources(node, wanted, hearing)
        ]
        ending = Ending()
        stack.enter_context(ending.by_signals())
        output = stack.enter_context(contextlib.closing(open_output(write, node, wanted, ending)))
        giving_way = stack.enter_context(contextlib.closing(GivingWay()))
        session = Session(sources, output, Limits(count, duration), ending, giving_way, node.table.follow)
        if duration is not None:
            ending.after(duration)
        click.echo(f"capturing on {interface}", err=True)  # from now on, no packet is overlooked
        try:
            session.run()
        finally:
            giving_way.close()
            ending.last(PATIENCE)
            click.echo(session.finish(), err=True)
        if session.failure is not None:  # of the last packets
            raise session.failure
