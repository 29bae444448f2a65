"""Lines of text on the servers that other directors see differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ours
NAMED = 5  # directors in one line


def describe_differences(service: Mapping[str, Any]) -> list[str]:
    """Return a line for each server that another director sees differently, and one for directors that are silent."""
    lines = [
        _difference(server["name"], each) for server in service["servers"] for each in server["differs_at"]
    ]
    silent = service["not_heard"] or []
    if silent:
        lines.append(f"the view of {name_some(silent)} is not known: nothing has been heard from there")
    return lines


def name_some(names: Sequence[str]) -> str:
    """Return the first of *names* in words, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _difference(server: str, row: Mapping[str, Any]) -> str:
    if row["state"] is None:
        return f"{row['director']} does not know {server}: it has a different peers file"
    since = format_duration(row["since_s"])
    return f"{server} is {row['state']} at {row['director']}, weight {row['effective_weight']}, for {since}"
