"""``overlay explain``: what would happen to one packet, and why."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask
from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import Number, interface_option, json_option
from overlay.cli.output import show, show_json

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ours
SCHEMA = 1
WIDTH = 100  # columns of the text, fewer on a terminal that has fewer
LABEL = 11  # of a step's name
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
PROTOCOL = click.Choice(["tcp", "udp", "sctp"])
PORT = Number(1, 65_535)
SIZE = Number(20, 65_535)  # bytes; the agent knows the size of an IPv6 header
THROUGH = {
    "tunnel": "goes through the tunnel to {peer}",
    "outside": "leaves by {interface}, not through the overlay",
    "here": "is delivered to this host",
    "nowhere": "goes nowhere",
}

OUT = {
    "outside": "comes out of the tunnel and is forwarded by {interface}",
    "here": "comes out of the tunnel and is delivered to this host",
}


@click.command("explain", epilog="Example: overlay explain 10.244.2.7 from 10.244.1.5")
@click.argument("address")
@click.argument("origin", nargs=-1, metavar="[from ADDRESS]")
@interface_option
@click.option("--protocol", type=PROTOCOL, help="The protocol, for services and packet filters.")
@click.option("--port", type=PORT, help="The destination port.")
@click.option("--source-port", type=PORT, help="The source port.")
@click.option(
    "--size", type=SIZE, metavar="BYTES", help="Check whether a packet of BYTES fits, its IP header included."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    address: str,
    origin: tuple[str, ...],
    interface: str,
    *,
    as_json: bool,
    **packet: str | int | None,
) -> None:
    """Show what would happen to a packet for ADDRESS, and why.

    Names of peers and services can stand for addresses.  Without `from`, this host sends the packet.  From an address
    behind this host, the host forwards it; from an address of a peer, it comes out of the tunnel.  With a tap, ADDRESS
    may be an Ethernet address.

    The kernel is asked for its routes, as `ip route get` does.  Nothing is sent.  The exit code is 0 if the packet
    would go, 1 if it would not, and 2 for wrong usage.
    """
    source = None
    if origin:
        if len(origin) != 2 or origin[0] != "from":
            raise Misuse(
                f"{' '.join(origin)} does not belong after {address}: write `overlay explain {address}` or "
                f"`overlay explain {address} from ADDRESS`"
            )
        source = origin[1]
    given = {"source": source, **packet}
    answer = ask(
        ctx,
        interface,
        op="explain",
        name=address,
        **{key: value for key, value in given.items() if value is not None},
    )
    found = answer.get("explanation")
    if not isinstance(found, dict):
        raise Failure(f"the agent of {interface} is of another version than this command: start it again")
    if as_json:
        show_json({"schema": SCHEMA, **found})
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        show("\n".join(_lines(found, min(columns, WIDTH))))
    if not found["goes"]:
        ctx.exit(1)


def _lines(found: dict[str, Any], width: int) -> Iterator[str]:
    source = "" if found["source"] is None else f" from {found['source']}"
    what = "a frame to " if MAC.fullmatch(found["destination"]) else ""
    yield f"{what}{found['destination']}{source} {_summary(found)}"
    for step in found["steps"]:
        yield _labelled(step["step"], step["text"], width)
    for doubt in found["doubts"]:
        yield _labelled("but", doubt, width)


def _summary(found: dict[str, Any]) -> str:
    if not found["goes"]:
        if found["refused_by"] == "peer":
            return f"is dropped by {found['peer']}"
        if found["path"] == "outside":
            return "leaves outside the tunnel"
        return (
            f"is dropped here, by the {found['refused_by']}"
            if found["refused_by"] != "node"
            else "is dropped here"
        )
    service, station = found["service"], found.get("station")
    if station is not None and found["path"] == "tunnel" and found["peer"] is None:
        return "goes to every peer" if station["mac"] is not None else "is asked for at every peer"
    route = found["route"] or {}
    if found["origin"] == "tunnel" and found["path"] in OUT:
        return OUT[found["path"]].format(interface=route.get("interface"))
    if station is not None and station["place"] == "here":
        return "stays on this side of the tap"
    if found["path"] == "tunnel" and found["peer"] is None and service is not None:
        return f"goes to a server of {service['name']}"
    return THROUGH[found["path"]].format(peer=found["peer"], interface=route.get("interface"))


def _labelled(label: str, text: str, width: int) -> str:
    return textwrap.fill(
        text,
        max(width, 2 * LABEL),
        initial_indent=f"  {label:<{LABEL}}",
        subsequent_indent=" " * (LABEL + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
