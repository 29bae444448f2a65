"""Packets that were dropped during the examination: for a cause in this node, or because a peer sent too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.numbers import count
from overlay.reasons import REASONS, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Ours
NAMED = 5  # reasons
EXPLAINED = {"no_endpoint", "send_refused", "service_preparing"}  # other findings explain these


def check_dropping(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> Iterator[Finding]:
    """Yield the reasons whose counters, by name, have grown most within *seconds*."""
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


def check_floods(
    before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]], seconds: float
) -> Iterator[Finding]:
    """Yield the peers that sent more than this node could handle within *seconds*.

    *before* and *after* have, by name, how many packets of a peer were dropped early for that so far, and how many
    others came.  No packets of a peer that is missing in *before* had been dropped then, and how many others had come
    is not known.  Packets that are dropped early were not authenticated.
    """
    for name, (dropped, taken) in after.items():
        dropped_before, taken_before = before.get(name, (0, taken))
        more = dropped - dropped_before
        if more > 0:
            rate = round((more + taken - taken_before) / max(seconds, 1))
            roughly = "about" if name in before else "at least"
            yield Finding(
                "peer_floods",
                f"{name} sends {roughly} {count(rate, 'packet')} a second, more than its share of what this node can "
                f"handle: {count(more, 'was', 'were')} dropped in the last {max(1, round(seconds))} s, so that other "
                "peers need not wait",
                f"find the program behind {name} that sends so much; `overlay capture` shows its packets; if it shows "
                f"few, and `overlay status` counts transport_auth for it, somebody who sees its datagrams forges more",
                name,
            )
