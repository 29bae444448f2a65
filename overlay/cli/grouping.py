"""Groups findings for reading: one that many peers have is shown once, and the other peers are named.

Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable

# Ours
EACH = 3  # peers at most for which findings of one kind are shown separately
NAMED = 10  # peers that are named; JSON has all


@dataclass(slots=True)
class Group:
    """Findings of one kind: the *first*, and the other peers that have one."""

    first: dict[str, Any]
    others: list[str] = field(default_factory=list)

    def describe_others(self) -> str | None:
        """Return a sentence that names the others; None if there are none."""
        if not self.others:
            return None
        named = ", ".join(self.others[:NAMED])
        left = len(self.others) - NAMED
        if left > 0:
            named += f" and {left} more, which --json names"
        return f"the same applies to {count(len(self.others), 'other peer')}: {named}"


def group(findings: Iterable[dict[str, Any]]) -> list[Group]:
    """Return *findings* in order; those of a kind that more than EACH peers have are one group."""
    findings = list(findings)
    peers: dict[str, dict[str, None]] = {}  # by kind, in order
    for each in findings:
        if each["peer"] is not None:
            peers.setdefault(each["name"], {})[each["peer"]] = None
    groups: list[Group] = []
    grouped: set[str] = set()  # kinds for which a group was made
    for each in findings:
        concerned = peers.get(each["name"], {})
        if each["peer"] is None or len(concerned) <= EACH:
            groups.append(Group(each))
        elif each["name"] not in grouped:
            grouped.add(each["name"])
            groups.append(Group(each, [name for name in concerned if name != each["peer"]]))
    return groups
