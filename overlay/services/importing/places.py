"""Where something stands in the files that are imported, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A line, counted from 1, of the file *path* as the user names it."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Remark:
    """What could not be carried over from *place*: *subject* is the directive, *reason* continues after it."""

    place: Place
    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.subject}: {self.reason}"


class Remarks:
    """What is said so far."""

    def __init__(self) -> None:
        self._said: list[Remark] = []

    def add(self, place: Place, subject: str, reason: str) -> None:
        """Say *reason* of *subject*, once however often it is met again."""
        remark = Remark(place, subject, reason)
        if remark not in self._said:
            self._said.append(remark)

    def all(self) -> tuple[Remark, ...]:
        """Return everything that was said, by the lines of each file."""
        paths = list(dict.fromkeys(remark.place.path for remark in self._said))
        return tuple(sorted(self._said, key=lambda each: (paths.index(each.place.path), each.place.line)))


class UnreadableError(Exception):
    """What was given is no such file.  The text is one sentence that begins with the place."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem
