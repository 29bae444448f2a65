"""``overlay status PEER``: everything about one peer, problems first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.cli.agents import UNENCRYPTED
from overlay.cli.output import format_age, format_bytes
from overlay.cli.overview import UNKNOWN, field_lines
from overlay.durations import format_duration
from overlay.numbers import count
from overlay.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Ours
ORIGINS = {
    "configured": "as in the peers file",
    "resolved": "resolved from {configured}",
    "heard": "learned from its datagrams",
}


def render_peer(peer: Mapping[str, Any], width: int | None = None) -> str:
    """Return *peer*, from an agent's answer, as text in lines of at most *width* columns; None for any width."""
    fields = [*_state(peer), *_place(peer), *_contact(peer), *_traffic(peer), *_services(peer), *_drops(peer)]
    return "\n".join(line for name, value in fields for line in field_lines(name, value, width))


def _state(peer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "peer", peer["name"]
    state = peer["state"]
    yield "state", UNKNOWN if state is None else f"{state} ({peer['encapsulation']})"
    for note in (peer["forwarder_note"], *peer["notes"]):
        if note is not None:
            yield "note", note
    for stranger in peer["strangers"]:
        yield "stranger", f"{stranger}, which is not the key of any peer, calls from its address"


def _place(peer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    endpoint = "none known"
    if peer["endpoint"] is not None:
        origin = ORIGINS.get(str(peer["endpoint_origin"]), "").format(configured=peer["configured_endpoint"])
        endpoint = f"{peer['endpoint']}, {origin}"
    yield "endpoint", endpoint
    yield "addresses", ", ".join(peer["addresses"]) or "-"
    yield "subnets", ", ".join(peer["subnets"]) or "-"
    yield "public key", peer["public_key"] or "-"
    if peer["mac"] is not None:
        yield "MAC", f"{peer['mac']}, that of this node is {peer['own_mac']}"
    if peer["keepalive"]:
        yield "keepalive", f"every {peer['keepalive']} s"


def _contact(peer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if peer["state"] != UNENCRYPTED:
        took = "" if peer["round_trip"] is None else f", took {peer['round_trip'] * 1000:.1f} ms"
        yield "handshake", format_age(peer["last_handshake"]) + took
    yield "received", UNKNOWN if peer["rx_bytes"] is None else format_age(peer["last_received"])
    yield "path MTU", _path_mtu(peer)


def _path_mtu(peer: Mapping[str, Any]) -> str:
    if peer["rx_bytes"] is None:
        return UNKNOWN
    text = "not found yet" if peer["path_mtu"] is None else f"packets of {peer['path_mtu']} bytes reach it"
    if peer.get("kernel_path_mtu") is not None:
        text += (
            f"; the kernel learned {peer['kernel_path_mtu']} from ICMP errors, and uses it for "
            f"{format_duration(peer['kernel_path_mtu_expires'])} more"
        )
    return text


def _traffic(peer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if peer["rx_bytes"] is None:
        yield "traffic", UNKNOWN
        return
    for name, way in (("received", "rx"), ("sent", "tx")):
        packets, units = peer[f"{way}_packets"], peer[f"{way}_units"]
        by_units = f", {count(units, 'bulk unit')}" if units else ""
        yield (
            f"{way.upper()}",
            f"{format_bytes(peer[f'{way}_bytes'])} {name}, {count(packets, 'packet')}{by_units}",
        )
    if peer["unit_segments"]:
        yield "bulk units", f"at most {count(peer['unit_segments'], 'segment')} each"
    if (peer["session_lanes"] or 1) > 1:
        yield "lanes", f"{peer['open_lanes']} of {peer['session_lanes']} open"
    if peer["learnt_macs"]:
        yield "MACs seen", str(peer["learnt_macs"])


def _services(peer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for each in peer["services"]:
        state = "balanced elsewhere" if each["state"] is None else each["state"]
        yield "service", f"{each['service']}, as its server {each['server']}: {state}"


def _drops(peer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    drops = peer["drops"] or {}
    for reason, number in sorted(drops.items(), key=lambda item: (-item[1], item[0])):
        if number:
            known = REASONS.get(reason)
            yield (
                "dropped",
                f"{reason} {number}" + ("" if known is None else f": the packet {known.sentence}"),
            )
