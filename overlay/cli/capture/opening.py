"""How a capture begins: the questions to the agent, and opening the sources and the output."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from overlay.capturing.entry import CapturePoint
from overlay.cli.agents import ask_with_descriptors
from overlay.cli.capture.dropped import DropNames, DroppedPackets
from overlay.cli.capture.outputs import LinesOutput, PcapngOutput, open_file, open_stdout
from overlay.cli.capture.sources import TunnelPackets, UnderlayDatagrams
from overlay.cli.capture.table import PeerNames
from overlay.cli.exits import Failure, Misuse
from overlay.errors import ConfigError, HostError
from overlay.host.sockets.packet_capture import PacketCapture, ifindex_of, not_of
from overlay.host.sockets.pcap_filter import LINK_ETHERNET, LINK_RAW, as_program, compile_expression

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import click

    from overlay.cli.capture.ending import Ending
    from overlay.cli.capture.outputs import Output
    from overlay.cli.capture.sources import Source
    from overlay.host.sockets.drop_socket import DropSocket

# Ours
STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which packets: those that match *expression*, and how many bytes of each, *snaplen*.

    With *dropped*, only those that were dropped; if it is not empty, for that reason.
    """

    expression: str
    snaplen: int
    with_outside: bool = False
    dropped: str | None = None

    @property
    def places(self) -> list[CapturePoint]:
        """Where they are captured, in the order of the interfaces in the file."""
        inside = [CapturePoint.OUT, CapturePoint.IN] if self.dropped is None else []
        outside = [CapturePoint.OUTSIDE_OUT, CapturePoint.OUTSIDE_IN] if self.with_outside else []
        return [*inside, CapturePoint.DROPPED, CapturePoint.REFUSED, *outside]


@dataclass(frozen=True, slots=True)
class CapturedNode:
    """What the agent of *interface* answers about its node.  *peer* is the name of the peer that was asked for."""

    interface: str
    is_tap: bool
    ports: tuple[int, ...]
    protocols: tuple[int, ...]
    peer: str | None
    table: PeerNames
    reasons: tuple[str, ...]


def asked_node(
    ctx: click.Context, interface: str, peer: str | None, reporting: socket.socket, wanted: Selection
) -> CapturedNode:
    """Return the agent's answer, and make its forwarder report dropped packets to *reporting*.

    Raises the errors of ask(), and Misuse for a peer that it does not know.
    """
    descriptors = [reporting.fileno()]  # only with the first question

    def ask(message: Mapping[str, Any], take: Callable[[list[Any]], object]) -> dict[str, Any]:
        return ask_with_descriptors(ctx, interface, take, descriptors, message)

    table = PeerNames(ask, follows_endpoints=wanted.with_outside)
    try:
        said = table.read(snaplen=wanted.snaplen, **({} if peer is None else {"name": peer}))
        ports, protocols = tuple(map(int, said["ports"])), tuple(map(int, said["protocols"]))
        named = None if said["peer"] is None else str(said["peer"])
        reasons = tuple(map(str, said["reasons"]))
        node = CapturedNode(interface, bool(said["is_tap"]), ports, protocols, named, table, reasons)
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(
            f"the agent of {interface} is of another version than this command: start it again"
        ) from error
    descriptors.clear()
    return node


def open_sources(node: CapturedNode, wanted: Selection, hearing: DropSocket) -> list[Source]:
    """Return the sources of packets; *hearing* gives dropped ones.  Raises HostError, ConfigError for a filter."""
    link = LINK_ETHERNET if node.is_tap else LINK_RAW
    try:
        instructions = compile_expression(wanted.expression, link, wanted.snaplen)
    except (ConfigError, HostError) as error:
        raise type(error)(f"--filter: {error}") from error
    outside = _outside(node, wanted) if wanted.with_outside else []
    if wanted.dropped is None:
        inside = PacketCapture(node.interface, as_program(instructions))
        outside.append(TunnelPackets(inside, node.table.whose, node.interface, node.peer, is_tap=node.is_tap))
    if wanted.expression.strip():
        hearing.let_through(instructions)
    reason = checked_reason(wanted.dropped or "", node.reasons)
    names, port = node.table.whose.names, min(node.ports, default=0)
    named = DropNames(node.interface, node.peer, node.reasons, names, port, node.is_tap)
    return [*outside, DroppedPackets(hearing, named, reason)]


def checked_reason(reason: str, known: Sequence[str]) -> str:
    """Return *reason*.  Raises Misuse if it is not among the *known* ones, unless it is empty."""
    if not reason or reason in known:
        return reason
    close = difflib.get_close_matches(reason, known, n=3)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else "docs/drops.md lists them all; PEER comes before it"
    )
    raise Misuse(f"--dropped: no packet is dropped for the reason {reason}: {hint}")


def _outside(node: CapturedNode, wanted: Selection) -> list[Source]:
    parts = [f"udp port {port}" for port in node.ports]
    parts += [f"ip proto {each} or ip6 proto {each}" for each in node.protocols]
    # Fragments after the first have no ports
    fragments = ["ip[6:2] & 0x1fff != 0 and ip proto 17"] if node.ports else []
    instructions = compile_expression(" or ".join((*parts, *fragments)), LINK_RAW, wanted.snaplen)
    compiled = as_program(not_of(ifindex_of(node.interface), instructions))
    return [UnderlayDatagrams(PacketCapture(None, compiled), node.table.whose, node.peer)]


def open_output(path: Path | None, node: CapturedNode, wanted: Selection, ending: Ending) -> Output:
    """Return the output of the capture: lines if *path* is None.  Raises Failure, and Misuse for a terminal."""
    if path is None:
        return LinesOutput(ending, wanted.places, is_tap=node.is_tap)
    if str(path) == STANDARD_OUTPUT:
        descriptor, name = open_stdout(is_terminal=sys.stdout.isatty()), "standard output"
    else:
        descriptor, name = open_file(path, ending), str(path)
    output = PcapngOutput(descriptor, name, ending)
    output.begin(
        _application(), wanted.places, node.interface, wanted.snaplen, wanted.expression, is_tap=node.is_tap
    )
    return output


def _application() -> str:
    try:
        return f"overlay {metadata.version('overlay')}"
    except metadata.PackageNotFoundError:
        return "overlay"
