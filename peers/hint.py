"""Likely mistakes in a peer table, and how many of one kind become a single sentence."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Ours
SEVERAL = 3  # hints of one kind that become one sentence
NAMED = 3  # subjects in that sentence


@dataclass(frozen=True, slots=True)
class Hint:
    """One likely mistake.

    *sentence* is complete by itself.  *several* replaces it for many *subjects* at once, after their number: ``peers
    have public endpoints``.
    """

    subject: str
    sentence: str
    several: str


def grouped(hints: Iterable[Hint]) -> list[str]:
    """Return the sentences of *hints*; SEVERAL or more of a kind become one, in the place of the first."""
    kinds: defaultdict[str, list[Hint]] = defaultdict(list)
    for hint in hints:
        kinds[hint.several].append(hint)
    sentences: list[str] = []
    for several, alike in kinds.items():
        if len(alike) < SEVERAL:
            sentences += [hint.sentence for hint in alike]
        else:
            sentences.append(f"{len(alike)} {several}: {listed([hint.subject for hint in alike])}")
    return sentences


def listed(names: Iterable[str]) -> str:
    """Return two *names* joined by "and"; of more, the first ones and the number of the others."""
    every = list(names)
    if len(every) == 2:
        return " and ".join(every)
    return f"{', '.join(every[:NAMED])}{and_more(len(every) - NAMED)}"


def and_more(count: int) -> str:
    """Return the end of a list with *count* more items that are not shown."""
    return f" and {count} more" if count > 0 else ""
