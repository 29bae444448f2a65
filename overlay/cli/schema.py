"""What ``--json`` prints: a schema number, units in the names of fields, and errors in the same form.

Agents and commands of one release talk to each other in shorter names.  Programs get these, and a field that is gone or
means something else makes another SCHEMA.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
JSON_OPTION = "--json"
WANTS_JSON = "overlay.json"  # in the meta of click's context: --json was given
_TOLD = "overlay.told"  # and: the result was printed

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
"""The name in JSON by that between agent and command."""
KEYED_BY_NAMES = {"drops", "server_commands"}
"""Fields that are objects whose keys are reasons or peers, and no fields."""


def told(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* as JSON has them, with the number of the schema."""
    return {"schema": SCHEMA, **renamed(fields)}


def renamed(value: Any) -> Any:
    """Return *value* with fields, also those inside of it, by their names in JSON."""
    if isinstance(value, dict):
        return {
            RENAMED.get(name, name): each if name in KEYED_BY_NAMES else renamed(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [renamed(each) for each in value]
    return value


def note_told() -> None:
    """Note that the command has printed its result as JSON: no error takes its place any more."""
    if (ctx := click.get_current_context(silent=True)) is not None:
        ctx.meta[_TOLD] = True


def tell_error(ctx: click.Context, kind: str, sentence: str) -> None:
    """Print an error in the place of the result, if JSON was asked for and there is none yet.

    *kind* is ``usage`` (an option or a file has to be another), ``no_agent`` or ``failed``.
    """
    if ctx.meta.get(WANTS_JSON) and not ctx.meta.get(_TOLD):
        ctx.meta[_TOLD] = True
        with contextlib.suppress(OSError):  # nobody reads it, and stderr has the sentence
            click.echo(json.dumps({"schema": SCHEMA, "error": {"kind": kind, "message": sentence}}))
