"""Callers of this node with keys that no peer has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from overlay.diagnosis.finding import Finding
from overlay.durations import format_duration
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Ours
RECENT = 600.0  # seconds; a host that called earlier has been corrected, or is gone
NAMED = 5


def check_strangers(strangers: Iterable[Mapping[str, Any]], missed: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each of the first NAMED of *strangers*, rows of the status, that called recently.

    *missed* are the names of silent peers: a stranger that is not at a peer's address may be one of them.
    """
    recent = [each for each in strangers if each["last_call"] < RECENT]
    for each in recent[:NAMED]:
        peer, key = each["peer"], each["public_key"]
        calls = (
            f"{count(each['calls'], 'handshake')} with the public key {key}, which no peer has here, came from "
            f"{each['endpoint']}, the last {format_duration(each['last_call'])} ago"
        )
        if peer is None:
            problem = f"{calls}, which is not the address of a known peer"
            remedy = "stop the agent that calls, or make it a peer"
            if missed:
                remedy = f"see whether {_or(missed)} has that key, and correct its public_key here; otherwise {remedy}"
            yield Finding("unknown_caller" if missed else "stranger", problem, remedy)
        else:
            yield Finding(
                "unknown_key",
                f"{calls}, the address of {peer}",
                f"see whether `overlay pubkey` at {peer} prints that key, and write it as public_key of {peer} in the "
                "peers file here",
                peer,
            )


def check_misdirected(told: Iterable[Finding], missed: Sequence[str]) -> Iterator[Finding]:
    """Yield those of *told*, findings on handshakes for other keys, that are about addresses where no peer is.

    They matter only if such a handshake comes from a peer that is *missed*.
    """
    for finding in told:
        if finding.peer is None:
            remedy = f"{finding.remedy}, if that is {_or(missed)}" if missed else finding.remedy
            yield replace(finding, name=finding.name if missed else "misdirected", remedy=remedy)


def _or(names: Sequence[str]) -> str:
    """Return the first of *names* as an alternative, in words."""
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} or another peer that is silent"
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
