"""The status of a node as text: problems first, as wide as there is room for."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from overlay.cli.agents import UNENCRYPTED
from overlay.cli.output import format_age, format_bytes, format_some, format_table
from overlay.durations import format_duration
from overlay.numbers import count
from overlay.troubles.peers import severity
from peers.peer import TAP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from overlay.cli.agents import PeerStatus, Status, Stranger

# Ours
UNKNOWN = "?"  # in a column
LABEL = 12  # columns of the names of fields
LEAST_WIDTH = 40  # narrower terminals wrap
SHOWN_SUBNETS = 2
SHOWN_DROPS = 10  # lines of drops; more would hide the peers


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of peers; *short* is its content if there is little room."""

    title: str
    cell: Callable[[PeerStatus], str]
    short: Callable[[PeerStatus], str] | None = None
    is_right: bool = False


def _state(peer: PeerStatus) -> str:
    if peer.state is None:
        return UNKNOWN
    return f"{peer.state} ({peer.encapsulation})" if peer.state == UNENCRYPTED else peer.state


def _received(peer: PeerStatus) -> str:
    return format_age(peer.last_received) if peer.is_counted else UNKNOWN


def _bytes(size: int | None) -> str:
    return UNKNOWN if size is None else format_bytes(size)


def _handshake(peer: PeerStatus) -> str:
    return "-" if peer.state == UNENCRYPTED else format_age(peer.last_handshake)


COLUMNS = (
    Column("NAME", lambda peer: peer.name),
    Column("STATE", _state),
    Column("ENDPOINT", lambda peer: peer.endpoint or "-"),
    Column(
        "SUBNETS",
        lambda peer: format_some(peer.subnets, SHOWN_SUBNETS) or "-",
        lambda peer: format_some(peer.subnets, 1) or "-",
    ),
    Column("HANDSHAKE", _handshake, lambda peer: _handshake(peer).removesuffix(" ago")),
    Column(
        "RECEIVED",
        _received,
        lambda peer: _received(peer).removesuffix(" ago"),
    ),
    Column("MTU", lambda peer: str(peer.path_mtu or "-") if peer.is_counted else UNKNOWN, is_right=True),
    Column("RX", lambda peer: _bytes(peer.rx_bytes), is_right=True),
    Column("TX", lambda peer: _bytes(peer.tx_bytes), is_right=True),
)
LEARNT = Column(
    "MACS", lambda peer: UNKNOWN if peer.learnt_macs is None else str(peer.learnt_macs), is_right=True
)
LANES = Column(
    "LANES",
    lambda peer: UNKNOWN if peer.open_lanes is None else f"{peer.open_lanes} of {peer.session_lanes}",
    is_right=True,
)
LEFT_OUT = (
    "LANES",
    "SUBNETS",
    "MTU",
    "MACS",
    "HANDSHAKE",
    "ENDPOINT",
    "RX",
    "TX",
    "RECEIVED",
)  # the first is dropped first


def render(status: Status, width: int | None = None, before: Status | None = None) -> str:
    """Return *status* as text, in lines of at most *width* columns if names allow it; None for any width.

    Drops since *before*, an earlier status, come first among the drops.
    """
    fields = [("node", status.node), *_troubles(status), *_facts(status)]
    lines = [line for name, value in fields for line in field_lines(name, value, width)]
    drops = _drops(status, before)
    if drops:
        lines += ["", *(line for name, value in drops for line in field_lines(name, value, width))]
    if status.lane_traffic:
        lines += ["", _lanes(status)]
    if status.peers:
        lines += ["", _table(status, width)]
    if not status.peers or status.absent.waiting:
        lines += ["", status.absent.describe()]
    macs = [(peer.name, peer.mac) for peer in status.peers if peer.mac is not None]
    own_macs = {peer.own_mac for peer in status.peers if peer.own_mac is not None}
    if macs:
        lines += ["", format_table(("MAC", ""), [*(("this node", mac) for mac in sorted(own_macs)), *macs])]
    return "\n".join(lines)


def troubled_first(status: Status) -> Status:
    """Return *status* with the peers in trouble first, the worst at the top; the others keep their order."""
    return replace(
        status, peers=sorted(status.peers, key=lambda peer: severity(peer.state, peer.notes), reverse=True)
    )


def fit(status: Status, width: int, height: int, before: Status | None) -> str:
    """Return as much of *status* as fits on a screen that must not scroll.

    The last line stays free for the cursor.
    """
    text = render(status, width, before)
    if text.count("\n") + 1 < height:
        return _cut(text, width)
    lines = text.split("\n")
    kept = max(0, height - 2)
    return _cut("\n".join([*lines[:kept], f"... and {count(len(lines) - kept, 'more line')}"]), width)


def _troubles(status: Status) -> list[tuple[str, str]]:
    troubles = [] if status.reload_error is None else [("not loaded", status.reload_error)]
    troubles += [("note", note) for note in status.notes]
    return troubles + [("stranger", _describe_stranger(each)) for each in status.strangers]


def _facts(status: Status) -> list[tuple[str, str]]:
    forwarder = "none"
    if status.forwarder_pid is not None:
        lanes = f", {status.lanes} lanes" if (status.lanes or 1) > 1 else ""
        forwarder = f"process {status.forwarder_pid} ({status.packet_path}{lanes})"
    services = ", ".join(f"{number} {state}" for state, number in (status.services or {}).items())
    port = "no port" if status.port is None else f"port {status.port}"
    return [
        ("interface", f"{status.interface}, MTU {status.mtu}, {port}"),
        *([("device", status.device)] if status.device == TAP else []),
        ("MTU", status.mtu_reason),
        ("addresses", ", ".join(status.addresses) or "-"),
        ("network", ", ".join(status.prefixes) or "-"),
        ("public key", status.public_key or "-"),
        ("peers file" if status.store is None else "store", status.peers_file),
        *([("membership", _describe_store(status.store))] if status.store is not None else []),
        *([("services", services)] if services else []),
        *([("containers", _describe_containers(status.containers))] if status.containers["attached"] else []),
        ("agent", f"process {status.pid}, forwarder {forwarder}, up for {format_duration(status.uptime)}"),
    ]


def _lanes(status: Status) -> str:
    """Return a table of each lane's traffic."""
    rows = [
        (str(lane), _bytes(each.rx_bytes), _bytes(each.tx_bytes), str(each.rx_packets), str(each.tx_packets))
        for lane, each in enumerate(status.lane_traffic)
    ]
    return format_table(("LANE", "RX", "TX", "PACKETS RX", "PACKETS TX"), rows)


def _describe_store(store: Mapping[str, Any]) -> str:
    """Return the state of this host in the store that it takes part in."""
    subnets = f" ({', '.join(map(str, store['subnets']))})" if store["subnets"] else ""
    silent = store["silent"]
    contact = "etcd answers" if silent is None else f"etcd has been silent for {format_duration(silent)}"
    origin = ", table of the last run" if store["table_from"] == "disk" else ""
    left_out = f", {count(store['left_out'], 'node')} left out" if store["left_out"] else ""
    return f"{store['state']}{subnets}, {contact}{origin}{left_out}"


def _describe_containers(containers: Mapping[str, Any]) -> str:
    """Return how many containers are attached, and the subnets from which new ones get addresses."""
    subnets = ", ".join(containers["subnets"])
    return f"{containers['attached']} attached" + (f", addresses from {subnets}" if subnets else "")


def _describe_stranger(stranger: Stranger) -> str:
    """Return a sentence on a caller with a key that no peer has."""
    whose = f"; {stranger.peer} is at that address: is its public_key right?" if stranger.peer else ""
    return (
        f"{stranger.public_key} is not the key of any peer; {count(stranger.calls, 'handshake')} from "
        f"{stranger.endpoint}, the last {format_age(stranger.last_call)}{whose}"
    )


def _drops(status: Status, before: Status | None) -> list[tuple[str, str]]:
    """Return lines on the drops of this node and of each peer, new ones first; those beyond SHOWN_DROPS become one
    line.
    """
    earlier = {} if before is None else {peer.name: peer.drops or {} for peer in before.peers}
    own = {} if before is None else before.drops or {}
    rows = [("this node", status.drops or {}, own)]
    rows += [(peer.name, peer.drops or {}, earlier.get(peer.name, {})) for peer in status.peers]
    counted = [
        (name, _new(drops, known) if before else {}, drops)
        for name, drops, known in rows
        if any(drops.values())
    ]
    counted.sort(key=lambda row: (-sum(row[1].values()), row[0] != "this node"))
    shown = [
        ("dropped", f"{name}: {_format_drops(drops, new)}") for name, new, drops in counted[:SHOWN_DROPS]
    ]
    if len(counted) > SHOWN_DROPS:
        shown.append(("dropped", f"at {len(counted) - SHOWN_DROPS} more; --json has all"))
    return shown


def _new(drops: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    grown = {reason: number - before.get(reason, 0) for reason, number in drops.items()}
    return {reason: number for reason, number in grown.items() if number > 0}


def _format_drops(drops: dict[str, int], new: dict[str, int]) -> str:
    counted = sorted(drops.items(), key=lambda item: (-new.get(item[0], 0), -item[1], item[0]))
    return ", ".join(
        f"{reason} {number}" + (f" (+{new[reason]})" if reason in new else "")
        for reason, number in counted
        if number
    )


def field_lines(name: str, value: str, width: int | None) -> list[str]:
    """Return a field in lines of *width* columns; an address or a path is never cut."""
    label = name.ljust(LABEL - 1) + " "
    if width is None or len(label) + len(value) <= width or width < LEAST_WIDTH:
        return [label + value]
    return textwrap.wrap(
        value,
        width,
        initial_indent=label,
        subsequent_indent=" " * LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(status: Status, width: int | None) -> str:
    """Return the peers, with as many columns as fit, and the names of the others."""
    columns: Sequence[Column] = (*COLUMNS, LEARNT) if status.device == TAP else COLUMNS
    if status.lane_traffic:
        columns = (*columns, LANES)
    text = _columns(status, columns, is_short=False)
    if width is None or _width(text) <= width:
        return text
    text = _columns(status, columns, is_short=True)
    left_out: list[str] = []
    for title in LEFT_OUT:
        if _width(text) <= width:
            break
        if any(column.title == title for column in columns):
            left_out.append(title)
            columns = [column for column in columns if column.title != title]
            text = _columns(status, columns, is_short=True)
    return (
        "\n".join([text, *textwrap.wrap(f"(too narrow for {', '.join(left_out)})", width)])
        if left_out
        else text
    )


def _columns(status: Status, columns: Sequence[Column], *, is_short: bool) -> str:
    cells = [column.short or column.cell if is_short else column.cell for column in columns]
    rows = [tuple(cell(peer) for cell in cells) for peer in status.peers]
    right = [index for index, column in enumerate(columns) if column.is_right]
    return format_table([column.title for column in columns], rows, right)


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _cut(text: str, width: int) -> str:
    return "\n".join(line[:width] for line in text.split("\n"))
