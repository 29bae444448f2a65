"""Services as text: for each its state and its director, its servers in a table, and problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlay.cli.output import format_bytes, format_table
from overlay.cli.services.elsewhere import describe_differences
from overlay.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Ours
UNKNOWN = "?"
WHOLE = 9.95  # rates from here on have no decimals
TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of servers; *total* is its content for all of them together."""

    title: str
    cell: Callable[[Mapping[str, Any]], str]
    total: Callable[[Mapping[str, Any]], str]
    is_right: bool = True


def _counted(key: str, form: Callable[[float], str] = str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: UNKNOWN if row[key] is None else form(row[key])


def _nothing(_: Mapping[str, Any]) -> str:
    return ""


def _weight(server: Mapping[str, Any]) -> str:
    weight = f"{server['effective_weight']}"
    if server["weight"] != server["effective_weight"]:
        weight += f" ({server['weight']})"
    return f"{weight}*" if server["set_by_hand"] else weight


def format_rate(rate: float) -> str:
    """Return *rate* with as many digits as are meaningful."""
    return f"{rate:.1f}" if 0 < rate < WHOLE else f"{rate:.0f}"


def _numbers(title: str, key: str, form: Callable[[float], str] = str) -> Column:
    return Column(title, _counted(key, form), _counted(key, form))


COLUMNS = (
    Column("SERVER", lambda server: str(server["name"]), lambda _: TOTAL, is_right=False),
    Column("STATE", lambda server: str(server["state"]), _nothing, is_right=False),
    Column("WEIGHT", _weight, lambda service: str(service["quorum"]["live_weight"])),
    _numbers("ACTIVE", "active_flows"),
    _numbers("INACTIVE", "inactive_flows"),
    _numbers("CONNS", "connections"),
    _numbers("PACKETS", "packets"),
    _numbers("BYTES", "bytes", format_bytes),
    _numbers("CONNS/S", "connections_per_s", format_rate),
    _numbers("PACKETS/S", "packets_per_s", format_rate),
    _numbers("BYTES/S", "bytes_per_s", format_bytes),
    Column("SINCE", lambda server: format_duration(server["since_s"]), _nothing, is_right=False),
    Column("REASON", lambda server: str(server["reason"]), _nothing, is_right=False),
)
LEFT_OUT = ("CONNS", "PACKETS", "BYTES", "INACTIVE", "SINCE", "PACKETS/S")
"""Columns left out on a narrow terminal; the first one first."""


def render(answer: Mapping[str, Any], width: int | None = None) -> str:
    """Return the services of an agent's *answer*, in lines of at most *width* columns if possible; None for any
    width.
    """
    services = answer["services"]
    parts = [_service(service, width) for service in services] or ["there are no services"]
    if services and answer["rates_over_s"] is not None:
        parts.append(f"rates are those of the last {answer['rates_over_s']:.1f} s")
    drops = _drops(answer["drops"])
    notes = [*([f"dropped, for no service: {drops}"] if drops else [])]
    notes += [f"note: {note}" for note in answer["notes"]]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _service(service: Mapping[str, Any], width: int | None) -> str:
    reason = f" ({service['reason']})" if service["reason"] else ""
    lines = [f"{service['name']}: {service['state']}{reason}", *(f"  {line}" for line in _facts(service))]
    if service["quorum"] is not None:
        table = _table(service, None if width is None else width - 2) if service["servers"] else "no servers"
        lines += [f"  {line}" for line in [*table.split("\n"), *describe_differences(service)]]
    return "\n".join(lines)


def _facts(service: Mapping[str, Any]) -> list[str]:
    ports = ",".join(service["ports"]) or "every"
    kept = f", persistence {service['persistence']} s" if service["persistence"] else ""
    once = ", each datagram by itself" if service["one_packet"] else ""
    addresses = ", ".join(service["addresses"])
    facts = [
        f"{','.join(service['protocols'])} {addresses} port {ports}, {service['scheduler']}{kept}{once}",
        _director(service["director"]),
    ]
    quorum = service["quorum"]
    if quorum is not None:
        bounds = ""
        if quorum["hysteresis"]:
            bounds = f", lost below {quorum['lost_below']}, gained at {quorum['gained_at']}"
        facts.append(f"live weight {quorum['live_weight']}, quorum {quorum['quorum']}{bounds}")
    facts += [_router(router) for router in service["vrrp"]]
    drops = _drops(service["drops"])
    return [*facts, f"dropped: {drops}"] if drops else facts


def _director(director: Mapping[str, Any]) -> str:
    if director["directors"] is None:
        return f"balanced here: {director['reason']}"
    here = " (this node)" if director["is_here"] else ""
    among = f" of {', '.join(director['directors'])}" if len(director["directors"]) > 1 else ""
    return f"balanced by {director['active']}{here}{among}, because {director['reason']}"


def _router(router: Mapping[str, Any]) -> str:
    active = router["active_router"]
    other = f"; {active} is active" if active is not None and router["state"] != "active" else ""
    return (
        f"VRRP {router['group']} for IPv{router['ip_version']} on {router['interface']}: {router['state']} for "
        f"{format_duration(router['since_s'])}, priority {router['priority']}, because {router['reason']}{other}"
    )


def _drops(drops: Mapping[str, int] | None) -> str:
    counted = sorted((drops or {}).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {number}" for reason, number in counted if number)


def _table(service: Mapping[str, Any], width: int | None) -> str:
    """Return the servers, with as many columns as fit."""
    columns: Sequence[Column] = COLUMNS
    text = _columns(service, columns)
    for title in LEFT_OUT:
        if width is None or max(map(len, text.split("\n"))) <= width:
            break
        columns = [column for column in columns if column.title != title]
        text = _columns(service, columns)
    return text


def _columns(service: Mapping[str, Any], columns: Sequence[Column]) -> str:
    rows = [[column.cell(server) for column in columns] for server in service["servers"]]
    if len(rows) > 1:
        rows.append([column.total(service) for column in columns])
    right = [place for place, column in enumerate(columns) if column.is_right]
    return format_table([column.title for column in columns], rows, right)
