"""The directives of one block of keepalived, looked up by keyword: a directive that is never looked up becomes a
remark.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlay.importing.places import Remarks
    from overlay.services.importing.blocks import Directive

# Specification (check_true_false of keepalived 2.2.7)
TRUE, FALSE = ("true", "on", "yes"), ("false", "off", "no")

_NUMBER = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]*)?|\.[0-9]+")


class BlockSettings:
    """The settings in a block.  If a keyword is repeated, the last one counts, as in keepalived.

    A value that keepalived would ignore becomes a remark, and counts as absent.
    """

    def __init__(self, directives: Iterable[Directive], remarks: Remarks) -> None:
        self._directives = list(directives)
        self._remarks = remarks
        self._asked: set[str] = set()

    def each(self, *keywords: str) -> list[Directive]:
        """Return all directives with one of *keywords*."""
        self._asked.update(keywords)
        return [each for each in self._directives if each.keyword in keywords]

    def last(self, *keywords: str) -> Directive | None:
        """Return the directive that counts; None if there is none, or it has no value."""
        found = self.each(*keywords)
        if found and not found[-1].value:
            self._remarks.add(
                found[-1].place, found[-1].keyword, "has no value, so keepalived ignores it too"
            )
            return None
        return found[-1] if found else None

    def number(self, keyword: str, least: int, most: int) -> int | None:
        """Return the number after *keyword*."""
        directive = self.last(keyword)
        if directive is None:
            return None
        self._note_rest(directive)
        value = int(directive.value) if _NUMBER.fullmatch(directive.value) else -1
        if least <= value <= most:
            return value
        self._remarks.add(
            directive.place, str(directive), f"is not a number from {least} to {most}, and is ignored"
        )
        return None

    def seconds(self, keyword: str, least: float, most: float) -> float | None:
        """Return the seconds after *keyword*, limited to *least* and *most*."""
        directive = self.last(keyword)
        if directive is None:
            return None
        self._note_rest(directive)
        if not _DECIMAL.fullmatch(directive.value):
            self._remarks.add(directive.place, str(directive), "is not a number of seconds, and is ignored")
            return None
        value = float(directive.value)
        bounded = min(max(value, least), most)
        if bounded != value:
            self._remarks.add(
                directive.place, str(directive), f"becomes {bounded:g}, the nearest accepted value"
            )
        return bounded

    def flag(self, keyword: str) -> bool | None:
        """Return whether *keyword* is set; None if it is missing.  Without a value it is set."""
        found = self.each(keyword)
        if not found:
            return None
        value = found[-1].value.lower() or TRUE[0]
        if value in TRUE or value in FALSE:
            return value in TRUE
        self._remarks.add(found[-1].place, str(found[-1]), "is neither true nor false, and is ignored")
        return None

    def _note_rest(self, directive: Directive) -> None:
        """Add a remark if there are words after the value of *directive*."""
        if rest := directive.values[1:]:
            self._remarks.add(
                directive.place,
                str(directive),
                f"ends before {rest[0]}, with keepalived too, because a line has one keyword",
            )

    def remark(
        self, reasons: Mapping[str, str], otherwise: str = "keepalived has no such keyword here"
    ) -> None:
        """Add a remark on everything that was not looked up: *reasons* are by keyword."""
        for directive in self._directives:
            if directive.keyword not in self._asked:
                reason = reasons.get(directive.keyword, otherwise)
                self._remarks.add(directive.place, str(directive), reason)
