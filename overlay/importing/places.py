"""Places in imported files, and remarks on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileLine:
    """A line, counted from 1, of the file *path*, which is as the user gave it."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that could not be carried over from *place*: *subject* is the directive, *reason* continues after
    it.
    """

    place: FileLine
    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.subject}: {self.reason}"


class Remarks:
    """The remarks so far, each once."""

    def __init__(self) -> None:
        self._said: dict[Remark, None] = {}

    def add(self, place: FileLine, subject: str, reason: str) -> None:
        """Add a remark: *reason*, about *subject*."""
        self._said.setdefault(Remark(place, subject, reason))

    def all(self) -> tuple[Remark, ...]:
        """Return all remarks, by file and line."""
        files: dict[str, int] = {}
        for remark in self._said:
            files.setdefault(remark.place.path, len(files))
        return tuple(sorted(self._said, key=lambda each: (files[each.place.path], each.place.line)))


class UnreadableError(Exception):
    """The input cannot be read as such a file.  The text is one sentence that begins with the place."""

    def __init__(self, place: FileLine, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem
