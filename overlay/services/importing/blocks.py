"""The syntax of keepalived's configuration: directives and their blocks, whatever they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.importing.places import UnreadableError
from overlay.services.importing import words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.importing.places import FileLine
    from overlay.services.importing.lines import Line

# Ours
MOST_DEPTH = 16  # of blocks; keepalived's have at most five


@dataclass(slots=True)
class Directive:
    """A line: its *words*, the first of which is the keyword, the *text* they were read from, and the content of its
    block.

    *block* is None if no ``{`` follows.
    """

    place: FileLine
    words: tuple[str, ...]
    text: str
    block: list[Directive] | None = field(default=None)

    @property
    def keyword(self) -> str:
        return self.words[0]

    @property
    def values(self) -> tuple[str, ...]:
        return self.words[1:]

    @property
    def value(self) -> str:
        """Return the first word after the keyword; empty if there is none."""
        return self.words[1] if len(self.words) > 1 else ""

    @property
    def content(self) -> list[Directive]:
        return self.block or []

    def __str__(self) -> str:
        return " ".join(self.words)


def parse(lines: Iterable[Line]) -> list[Directive]:
    """Return the directives in *lines*.  Raises UnreadableError for unpaired braces."""
    top: list[Directive] = []
    open_blocks: list[tuple[Directive, list[Directive]]] = []
    current, last = top, None
    for line in lines:
        if line.text == "{":
            if last is None:
                raise UnreadableError(
                    line.place,
                    "this { follows no keyword; write it after one, or put text with braces in quotes",
                )
            if len(open_blocks) >= MOST_DEPTH:
                raise UnreadableError(
                    line.place, f"blocks are nested more than {MOST_DEPTH} deep; nest fewer"
                )
            open_blocks.append((last, current))
            last.block = current = []
            last = None
        elif line.text == "}":
            if not open_blocks:
                raise UnreadableError(
                    line.place, "this } closes nothing; remove it, or write the { it belongs to"
                )
            _, current = open_blocks.pop()
            last = None
        else:
            found = words.split(line.text)
            if found and found[0]:
                last = Directive(line.place, found, line.text)
                current.append(last)
    if open_blocks:
        unclosed, _ = open_blocks[-1]
        raise UnreadableError(
            unclosed.place, f"the {{ of {unclosed} is never closed; write a }} at the end of its block"
        )
    return top
