"""``overlay status``: show what the agent knows of this node and its peers."""

from __future__ import annotations

import itertools
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import UNENCRYPTED, ask, read_status
from overlay.cli.options import interface_option, json_option
from overlay.cli.output import (
    count,
    format_age,
    format_bytes,
    format_duration,
    format_some,
    format_table,
    show,
    show_json,
)
from overlay.cli.surroundings import Surroundings
from overlay.errors import HostError
from peers.peer import TAP

if TYPE_CHECKING:
    from overlay.cli.agents import PeerStatus, Status, Stranger

# Ours
WATCH_INTERVAL = 1.0  # seconds
SHOWN_SUBNETS = 2
CLEAR = "\033[H\033[J"  # cursor home, erase below (ECMA-48)
HEADER = ("NAME", "STATE", "ENDPOINT", "SUBNETS", "HANDSHAKE", "RECEIVED", "MTU", "RX", "TX")
LEARNT = "MACS"
RIGHT = (6, 7, 8, 9)


@click.command("status", epilog="Example: overlay status --watch")
@interface_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.pass_context
def command(ctx: click.Context, interface: str, as_json: bool, watch: bool) -> None:
    """Show this node and its peers.

    A peer is up (its tunnel works), silent (packets were sent to it, and it has answered nothing for 15 seconds),
    connecting (a handshake runs), idle (nothing to send since the last tunnel ended), unconfirmed (handshakes are
    answered and lead to no common keys, as where preshared keys differ) or unreachable (it was called for 90 seconds
    and did not answer).  Of one that is unencrypted, with the encapsulation in parentheses, nothing of the kind is known.

    RECEIVED is when the last message of a peer came.  MTU is the largest packet that reaches it, as far as probes
    have told.  MACS, with a tap, is how many Ethernet addresses were seen at the peer in the last five minutes.

    MAC addresses are shown where packets travel in Ethernet frames: those to write at a far end that is no agent.

    Dropped packets are counted by reason, for the node and for each peer.
    """
    answer = ask(ctx, interface, op="status")
    if not watch:
        _show(answer, interface, as_json)
        return
    is_terminal = sys.stdout.isatty() and not as_json
    for turn in itertools.count():
        if turn > 0:
            Surroundings.of(ctx).sleep(WATCH_INTERVAL)
            try:
                answer = ask(ctx, interface, op="status")
            except HostError as error:  # it may come back: an agent that is started again keeps its interface
                click.echo(f"{CLEAR if is_terminal else ''}{error}", err=True)
                continue
        if as_json:
            show_json(answer.get("status"), compact=True)
        elif is_terminal:
            show(CLEAR + _fit(render(read_status(interface, answer))))
        else:
            show(render(read_status(interface, answer)) + "\n")


def render(status: Status) -> str:
    """Return *status* as a person reads it."""
    forwarder = "none" if status.forwarder_pid is None else f"process {status.forwarder_pid}"
    port = "no port" if status.port is None else f"port {status.port}"
    lines = [
        f"node        {status.node}",
        f"interface   {status.interface}, MTU {status.mtu}, {port}",
        f"MTU         {status.mtu_reason}",
        f"addresses   {', '.join(status.addresses)}",
        f"network     {', '.join(status.prefixes)}",
        f"public key  {status.public_key or '-'}",
        f"peers file  {status.peers_file}",
        f"agent       process {status.pid}, forwarder {forwarder}, up for {format_duration(status.uptime)}",
    ]
    if status.device == TAP:
        lines.insert(2, f"device      {status.device}")
    if status.reload_error is not None:
        lines.append(f"not loaded  {status.reload_error}")
    lines += [f"note        {note}" for note in status.notes]
    lines += [f"stranger    {_describe_stranger(each)}" for each in status.strangers]
    if status.peers:
        header: tuple[str, ...] = HEADER
        rows = [_row(peer) for peer in status.peers]
        if status.device == TAP:
            header = (*HEADER, LEARNT)
            rows = [(*row, str(peer.learnt_macs)) for row, peer in zip(rows, status.peers, strict=True)]
        lines += ["", format_table(header, rows, RIGHT)]
    else:
        lines += ["", "no other peers"]
    macs = [(peer.name, peer.mac) for peer in status.peers if peer.mac is not None]
    own_macs = {peer.own_mac for peer in status.peers if peer.own_mac is not None}
    if macs:
        lines += ["", format_table(("MAC", ""), [*(("this node", mac) for mac in sorted(own_macs)), *macs])]
    drops = [("this node", _format_drops(status.drops))]
    drops += [(peer.name, _format_drops(peer.drops)) for peer in status.peers]
    rows = [row for row in drops if row[1]]
    if rows:
        lines += ["", format_table(("DROPPED", ""), rows)]
    return "\n".join(lines)


def _show(answer: dict[str, Any], interface: str, as_json: bool) -> None:
    if as_json:
        show_json(answer.get("status"))
    else:
        show(render(read_status(interface, answer)))


def _describe_stranger(stranger: Stranger) -> str:
    """Return who called with a key that no peer has."""
    whose = f"; {stranger.peer} is at that address: is its public_key right?" if stranger.peer else ""
    return (
        f"{stranger.public_key} is no peer's key; {count(stranger.calls, 'call')} from {stranger.endpoint}, "
        f"the last {format_age(stranger.last_call)}{whose}"
    )


def _row(peer: PeerStatus) -> tuple[str, ...]:
    return (
        peer.name,
        f"{peer.state} ({peer.encapsulation})" if peer.state == UNENCRYPTED else peer.state,
        peer.endpoint or "-",
        format_some(peer.subnets, SHOWN_SUBNETS) or "-",
        "-" if peer.state == UNENCRYPTED else format_age(peer.last_handshake),
        format_age(peer.last_received),
        str(peer.path_mtu or "-"),
        format_bytes(peer.rx_bytes),
        format_bytes(peer.tx_bytes),
    )


def _format_drops(drops: dict[str, int]) -> str:
    counted = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {number}" for reason, number in counted if number)


def _fit(text: str) -> str:
    """Return *text* cut to the terminal, so that it never scrolls."""
    columns, height = shutil.get_terminal_size()
    lines = [line[:columns] for line in text.split("\n")]
    if len(lines) < height:  # the last line stays free for the cursor
        return "\n".join(lines)
    kept = max(0, height - 2)
    return "\n".join([*lines[:kept], f"... and {len(lines) - kept} more lines"[:columns]])
