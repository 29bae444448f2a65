"""A problem found at a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about this host, or the path to a *peer*, that blocks traffic or slows it down.

    *name* is its kind, for programs; `overlay.diagnosis.kinds` has all kinds.  *problem* says what is wrong and what
    follows from that, *remedy* what to do: a command in backquotes if one corrects it, empty if nothing can be done.
    """

    name: str
    problem: str
    remedy: str = ""
    peer: str | None = None

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem
