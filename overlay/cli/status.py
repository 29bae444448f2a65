"""``overlay status``: show what the agent knows of this node and its peers, or check whether they are well."""

from __future__ import annotations

import itertools
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from overlay.cli import colours
from overlay.cli.agents import ask, read_peer_status, read_status
from overlay.cli.exits import Failure, Misuse
from overlay.cli.one_peer import render_peer
from overlay.cli.options import Seconds, interface_option, json_option, peer_argument
from overlay.cli.output import show, show_json
from overlay.cli.overview import fit, render, troubled_first
from overlay.cli.surroundings import Surroundings
from overlay.cli.wellness import Wellness, judge_node, judge_peers
from overlay.documents import tell_status, told
from overlay.errors import HostError
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.cli.agents import Status

# Ours
WATCH_INTERVAL = 1.0  # seconds
CLEAR = "\033[H\033[J"  # cursor home, erase below (ECMA-48)
LONGEST_SILENCE = 10.0**9  # seconds


@click.command("status", epilog="Example: overlay status --watch")
@peer_argument(required=False)
@interface_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.option(
    "--check",
    is_flag=True,
    help="Print one line on whether the node is well; the exit code is 1 if it is not.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="With --check: whether this peer is well; may be repeated.",
)
@click.option(
    "--max-silence",
    type=Seconds(0.001, LONGEST_SILENCE),
    metavar="SECONDS",
    help="With --check: a peer is well only if a message from it has arrived within this time.",
)
@click.pass_context
def command(
    ctx: click.Context,
    peer: str | None,
    interface: str,
    as_json: bool,
    watch: bool,
    check: bool,
    peers: tuple[str, ...],
    max_silence: float | None,
) -> None:
    """Show this node and its peers, or everything about PEER, a name or an address.

    A peer is up (its tunnel works), silent (packets were sent to it, and it has answered nothing for 15 seconds),
    connecting (a handshake runs), idle (nothing to send since the last session ended), unresolved (its endpoint is a
    name that has no address), unconfirmed (handshakes are answered but lead to no common keys, probably because the
    preshared keys differ) or unreachable (it has not answered a handshake for 90 seconds).  The state of an unencrypted
    peer is not known; its encapsulation is in parentheses.

    Peers in trouble come first.  RECEIVED is when the last message of the peer arrived.  MTU is the largest packet that
    is sent to it: that of the device, unless probes or the kernel have found that the path carries less.  MACS, with a
    tap, is how many Ethernet addresses were seen at the peer in the last five minutes.

    MAC addresses are shown where packets travel in Ethernet frames, to be configured at a far end that is not an agent.

    Dropped packets are counted by reason, for the node and for each peer.  With --watch, reasons whose counters grow
    come first.

    With --check, a node is well while its forwarder answers, any of its peers is well, and none of its services lacks
    servers.  A peer is well if it is up, idle or unencrypted.  An idle peer sends nothing, so --max-silence needs a
    keepalive.

    While the agent waits for its network, for example because this host is not enrolled yet, only that is shown: what
    it waits for, and what to do.  The exit code is 1.  --watch shows the node once it has joined.

    While the process that carries packets hangs, values that are not known are ? here and null in the JSON, and the
    exit code is 1.

    On a terminal that is too narrow, columns are left out and named; --json has everything.
    """
    if not check and (peers or max_silence is not None):
        raise Misuse(f"{'--peer' if peers else '--max-silence'} needs --check: add it")
    if watch and (check or peer is not None):
        raise Misuse(f"--watch shows the node: remove it, or {'--check' if check else 'PEER'}")
    if check:
        _check(ctx, interface, (*peers, peer) if peer is not None else peers, max_silence, as_json=as_json)
    elif peer is not None:
        _show_peer(ctx, interface, peer, as_json=as_json)
    elif watch:
        _watch(ctx, interface, as_json=as_json)
    else:
        answer = _ask_status(ctx, interface, as_json=as_json)
        if as_json:
            show_json(tell_status(answer["status"]))
        else:
            show(render(troubled_first(read_status(interface, answer)), _width()), paint=_paint())
        if (answer.get("status") or {}).get("is_complete") is False:
            raise Failure(
                f"the status of {interface} is incomplete: its forwarder did not report its counters"
            )


def _ask_status(ctx: click.Context, interface: str, *, as_json: bool) -> dict[str, Any]:
    """Return the agent's answer; if the agent is not a node yet, print the reason, and end the command."""
    from overlay.host.control import WaitingError  # noqa: PLC0415  completion does without the control socket

    try:
        return ask(ctx, interface, op="status")
    except WaitingError as error:
        if as_json:
            raise
        show(str(error))
        ctx.exit(1)


def _width() -> int | None:
    """Return the columns of the terminal; None if the result goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _paint() -> Callable[[str], str]:
    return colours.paint_status if colours.are_wanted() else str


def _watch(ctx: click.Context, interface: str, *, as_json: bool) -> None:
    from overlay.host.control import WaitingError  # noqa: PLC0415  completion does without the control socket

    is_terminal = sys.stdout.isatty() and not as_json
    before: Status | None = None
    for turn in itertools.count():
        if turn > 0:
            Surroundings.of(ctx).sleep(WATCH_INTERVAL)
        try:
            answer = ask(ctx, interface, op="status")
        except HostError as error:  # it may come back: a restarted agent keeps its interface
            if turn == 0 and not isinstance(error, WaitingError):
                raise
            click.echo(f"{CLEAR if is_terminal else ''}{printable(str(error))}", err=True)
            continue
        if as_json:
            show_json(tell_status(answer["status"]), compact=True)
            continue
        status = troubled_first(read_status(interface, answer))
        if is_terminal:
            show(fit(status, *shutil.get_terminal_size(), before), CLEAR, _paint())
        else:
            show(render(status, None, before) + "\n")
        before = status


def _show_peer(ctx: click.Context, interface: str, name: str, *, as_json: bool) -> None:
    answer = ask(ctx, interface, op="peer", name=name, is_counted=True)
    if as_json:
        show_json(tell_status(answer["peer"]))
    else:
        read_peer_status(interface, answer)  # checks that it is of this version
        show(render_peer(answer["peer"], _width()), paint=_paint())
    if (answer.get("peer") or {}).get("forwarder_note") is not None:
        raise Failure(f"the status of {name} is incomplete: the forwarder did not report its counters")


def _check(
    ctx: click.Context, interface: str, names: tuple[str, ...], max_silence: float | None, *, as_json: bool
) -> None:
    """Print whether the node, or the peers *names*, are well, and exit with 1 if not.

    Monitoring reads the result, so a missing agent is a result, too.
    """
    try:
        if names:
            rows = [ask(ctx, interface, op="peer", name=name, is_counted=True) for name in names]
            judged = judge_peers([read_peer_status(interface, row) for row in rows], max_silence)
        else:
            answer = ask(ctx, interface, op="status")
            is_complete = (answer.get("status") or {}).get("is_complete") is not False
            judged = judge_node(read_status(interface, answer), max_silence, is_complete=is_complete)
    except HostError as error:
        judged = Wellness(False, str(error))
    if as_json:
        show_json(told({"is_well": judged.is_well, "reason": judged.sentence}))
    else:
        show(judged.sentence)
    if not judged.is_well:
        ctx.exit(1)
