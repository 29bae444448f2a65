"""What may be found at a node when it is looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something of this host, or of the way to a *peer*, that keeps traffic from going, or from going fast.

    *name* tells what kind it is, for programs; `overlay.diagnosis.kinds` has them all.  *problem* says what is wrong
    and what follows, *remedy* what to do: a command in backquotes where one mends it, empty where nothing can be done.
    """

    name: str
    problem: str
    remedy: str = ""
    peer: str | None = None

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem
