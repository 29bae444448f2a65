"""Callers of this node with keys that no peer has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.diagnosis.finding import Finding
from overlay.durations import format_duration
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Ours
RECENT = 600.0  # seconds; an earlier call is from a host that has been corrected, or is gone
NAMED = 5


def check_strangers(strangers: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield a finding for the last of *strangers*, in the form of the status, that called recently."""
    recent = [each for each in strangers if each["last_call"] < RECENT]
    for each in recent[:NAMED]:
        peer, key = each["peer"], each["public_key"]
        calls = (
            f"{count(each['calls'], 'handshake')} by the public key {key}, which no peer has here, came from "
            f"{each['endpoint']}, the last {format_duration(each['last_call'])} ago"
        )
        if peer is None:
            yield Finding(
                "stranger",
                f"{calls}, which is not the address of a known peer",
                "see whether a public_key in the peers file here is wrong, or stop the agent that calls",
            )
        else:
            yield Finding(
                "unknown_key",
                f"{calls}, the address of {peer}",
                f"see whether `overlay pubkey` at {peer} prints that key, and write it as public_key of {peer} in the "
                "peers file here",
                peer,
            )
