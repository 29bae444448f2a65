"""Packets that were dropped during the examination, for a cause in this node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.numbers import count
from overlay.reasons import REASONS, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Ours
NAMED = 5  # reasons
EXPLAINED = {"no_endpoint", "send_refused", "service_preparing"}  # other findings explain these


def check_dropping(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> Iterator[Finding]:
    """Yield the reasons whose counters, by name, have grown most in so many *seconds*."""
    grown = {name: number - before.get(name, 0) for name, number in after.items()}
    worst = sorted((each for each in grown.items() if each[1] > 0), key=lambda each: -each[1])
    for name, number in worst[:NAMED]:
        reason = REASONS.get(name)
        if reason is not None and reason.cause is Cause.HERE and name not in EXPLAINED:
            dropped = f"{count(number, 'packet was', 'packets were')} dropped in the last {max(1, round(seconds))} s"
            yield Finding(
                "dropping",
                f"{dropped}, each of which {reason.sentence} ({name})",
                "`overlay status --watch` shows whether this continues, and for which peers",
            )
