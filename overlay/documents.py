"""The JSON documents that programs read: those of commands with ``--json``, and of the page under ``/api/``.

Agents and commands of one release use shorter names between each other.  Programs get these documents, with a schema
number, units in the names of fields, and errors in the same form.  Removing a field, or changing its meaning, needs
another SCHEMA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Ours
SCHEMA = 1
RENAMED = {
    "clock_behind": "clock_behind_seconds",
    "idle_s": "idle_seconds",
    "keepalive": "keepalive_seconds",
    "kernel_path_mtu": "kernel_path_mtu_bytes",
    "kernel_path_mtu_expires": "kernel_path_mtu_expires_seconds",
    "last_call": "last_call_age_seconds",
    "last_handshake": "last_handshake_age_seconds",
    "last_received": "last_received_age_seconds",
    "left_s": "left_seconds",
    "mtu": "mtu_bytes",
    "path_mtu": "path_mtu_bytes",
    "persistence": "persistence_seconds",
    "rates_over_s": "rates_over_seconds",
    "round_trip": "round_trip_seconds",
    "silent": "silent_seconds",
    "since_s": "since_seconds",
    "uptime": "uptime_seconds",
    **{f"{each}_per_s": f"{each}_per_second" for each in ("connections", "packets", "bytes")},
}
"""The name in the documents for each name between agent and command."""
KEYED_BY_NAMES = {"drops", "server_commands"}
"""Fields that are objects whose keys are reasons or peers, not fields."""
OF_SERVICES = ("services", "notes", "rates_over_s", "drops")
"""The fields of the agent's answer that the document of services has."""
WORST_FIRST = ("error", "warning", "notice")


def told(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* in their JSON form, with the number of the schema."""
    return {"schema": SCHEMA, **renamed(fields)}


def renamed(value: Any) -> Any:
    """Return *value* with fields, including nested ones, under their names in JSON."""
    if isinstance(value, dict):
        return {
            RENAMED.get(name, name): renamed(each)
            if isinstance(each, dict | list) and name not in KEYED_BY_NAMES
            else each
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [renamed(each) if isinstance(each, dict | list) else each for each in value]
    return value


def tell_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of the *status* of a node with its peers, or of one peer.

    It has every drop reason; the rows of a node's peers have only those that occurred, because there may be ten
    thousand peers.
    """
    return told({**status, "drops": _every_reason(status.get("drops"))})


def _every_reason(drops: Mapping[str, int] | None) -> dict[str, int] | None:
    """Return *drops* with all other reasons at 0; None if they are not known."""
    return None if drops is None else {**dict.fromkeys(REASONS, 0), **drops}


def tell_services(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of the services in an *answer* of the agent that has all OF_SERVICES."""
    return told({name: answer[name] for name in OF_SERVICES})


def tell_events(answer: Mapping[str, Any], events: Sequence[Any]) -> dict[str, Any]:
    """Return the document of *events*, which came before an *answer* of the agent.

    ``last`` is the number of the last event of all; ``is_complete`` is False if there were more than these.
    """
    return {
        "schema": SCHEMA,
        **{name: answer.get(name) for name in ("run", "last", "is_complete")},
        "events": events,
    }


def tell_history(history: Mapping[str, Any], peers: Sequence[Any]) -> dict[str, Any]:
    """Return the document of a *history* with the rows of its *peers*, whose names stay as the agent gives them."""
    return {**history, "schema": SCHEMA, "peers": peers}


def tell_examination(
    *,
    interface: str,
    node: str | None,
    findings: Iterable[dict[str, Any]],
    is_running: bool = True,
    packet_path: str | None = None,
    peers: int = 0,
    asked: int = 0,
    answered: int = 0,
) -> dict[str, Any]:
    """Return the document of an examination, *findings* with the worst first: of *peers*, some were *asked*."""
    return {
        "schema": SCHEMA,
        "interface": interface,
        "node": node,
        "is_running": is_running,
        "packet_path": packet_path,
        "peers": peers,
        "asked": asked,
        "answered": answered,
        "findings": worst_first(findings),
    }


def worst_first(findings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *findings* by severity, otherwise in their order; unknown severities of a newer agent come last."""
    places = {severity: place for place, severity in enumerate(WORST_FIRST)}
    return sorted(findings, key=lambda each: places.get(str(each.get("severity")), len(places)))


def tell_failure(kind: str, sentence: str) -> dict[str, Any]:
    """Return the document that says why there is no result, with a *kind* that programs know."""
    return {"schema": SCHEMA, "error": {"kind": kind, "message": sentence}}
