"""What an administrator should know of a store, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class StoreRemark:
    """Something about a store, though the table in force is not affected.

    *problem* says what is wrong and what follows, *remedy* what to do: a command in backquotes where one mends it,
    empty where nothing can be done.
    """

    problem: str
    remedy: str = ""

    @classmethod
    def of(cls, sentence: str, consequence: str = "") -> Self:
        """Return what an error's *sentence* says, whose remedy follows a semicolon, and its *consequence*."""
        problem, _, remedy = sentence.partition("; ")
        return cls(problem + consequence, remedy)

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem
