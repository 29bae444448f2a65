"""Lines of keepalived's configuration, with comments, includes, variables, conditions and repetitions resolved.

A line is treated as by read_line() in lib/parser.c of keepalived 2.2.7, in that order:

    # comment, ! comment      to the end of the line, unless escaped or in double quotes
    @ID line, @^ID line         only if the configuration has this identifier, or does not have it
    $NAME=value               a variable; a value that ends with a backslash continues in the next lines
    $NAME, ${NAME}            its value
    ~SEQ(NAME, START, STEP, END) line      the line once for each number; ~SEQx in hexadecimal digits
    ~LST({A, B}, {1, 2}, {3, 4}) line      the line once for each set of values
    include PATTERN             the files that it names; includer, includem, includew, includeb, includea require them
    { and }                   are lines of their own, unless in double quotes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from overlay.importing.places import FileLine, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from overlay.importing.places import Remarks

# Ours
MOST_LINES = 200_000  # including all repetitions; a service with a thousand servers takes about ten thousand
MOST_REPLACED = 256  # variables in one line, including those in their values
MOST_DEPTH = 32  # of included files, and of nested repetitions
LONGEST = 16 * 1024  # characters of a line with its variables replaced


@dataclass(frozen=True, slots=True)
class File:
    """A file: its *path* as shown to the user, to which includes are relative, and its *text*."""

    path: str
    text: str


Include: TypeAlias = "Callable[[str, str], Sequence[File]]"
"""Returns the files that match a pattern, given the path of the including file; empty if none match."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank; ``{`` and ``}`` are lines of their own."""

    place: FileLine
    text: str


_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=[ \t]*(.*)", re.DOTALL)
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)[ 0-9]*\}|([A-Za-z_][A-Za-z0-9_]*)(?=[ \t,)]|$))")
_SEQUENCE = re.compile(r"~SEQ(x?)[ \t]*\([ \t]*([^ \t,)]+)[ \t]*,([^)]*)\)[ \t]*(.*)", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]{0,17})")
_LIST = re.compile(
    r"~LST[ \t]*\([ \t]*(\{[^})]*\}|[^ \t,){}]+)[ \t]*,((?:\{[^})]*\}|[^){}])*)\)[ \t]*(.*)", re.DOTALL
)
_SET = re.compile(r"[ \t]*(?:\{([^}]*)\}|([^,{}]*))[ \t]*(?:,|$)")
_INCLUDE = re.compile(r"include([rmwba]?)[ \t]+(.*)", re.DOTALL)
_BRACE = re.compile(r'[^{}"]*(?:"[^"]*"[^{}"]*)*')

_NO_VALUE = {
    "_RANDOM": "is another number at each start",
    "_PWD": "is the directory that keepalived was started in",
}

_Source: TypeAlias = "Iterator[tuple[FileLine, str]]"


def read_lines(
    file: File, include: Include, remarks: Remarks, config_id: str | None = None
) -> Iterator[Line]:
    """Yield the lines of *file* as keepalived reads them; *config_id* is its ``-i``.

    A missing included file becomes a remark if keepalived continues without it.  Raises UnreadableError, and nothing
    else, for any text.
    """
    yield from _Reader(include, remarks, config_id).read(file)


class _Reader:
    def __init__(self, include: Include, remarks: Remarks, config_id: str | None) -> None:
        self._include, self._remarks, self._config_id = include, remarks, config_id
        # A value of several lines has more than one item
        self._variables: dict[str, tuple[str, ...]] = {"_INSTANCE": ("",), "_HASH": ("#",), "_BANG": ("!",)}
        self._sources: list[_Source] = []  # the last one is read first
        self._count = 0

    def read(self, file: File) -> Iterator[Line]:
        self._push(FileLine(file.path, 1), _lines_of(file))
        while (found := self._next()) is not None:
            place, text = found
            expanded = self._expand(place, text) if text else None
            if expanded is None or self._is_include(place, expanded):
                continue
            for piece in _pieces(place, expanded):
                yield Line(place, piece)

    def _next(self) -> tuple[FileLine, str] | None:
        while self._sources:
            found = next(self._sources[-1], None)
            if found is not None:
                self._count += 1
                if self._count > MOST_LINES:
                    raise UnreadableError(
                        found[0], f"the repetitions make more than {MOST_LINES} lines; write fewer"
                    )
                return found
            self._sources.pop()
        return None

    def _push(self, place: FileLine, source: _Source) -> None:
        if len(self._sources) > MOST_DEPTH:
            raise UnreadableError(
                place,
                f"files and repetitions are nested more than {MOST_DEPTH} deep; nest fewer",
            )
        self._sources.append(source)

    def _expand(self, place: FileLine, text: str) -> str | None:
        """Return the line that *text* stands for; None if it is not a line."""
        for _ in range(MOST_REPLACED):
            if text.startswith("@"):
                text = self._unless_other(text)
            if not text:
                return None
            if (match := _DEFINITION.fullmatch(text)) is not None:
                self._define(match[1], match[2])
                return None
            if text.startswith(("~SEQ", "~LST")):
                self._push(place, self._repeated(place, text))
                return None
            replaced = self._replace_one(place, text)
            if replaced is None:
                return text
            if len(replaced) > LONGEST:
                raise UnreadableError(
                    place, f"has more than {LONGEST} characters with its variables replaced; write it shorter"
                )
            text = _without_comment(place, replaced)
        raise UnreadableError(
            place, f"has more than {MOST_REPLACED} variables, or one that contains itself; write out the text"
        )

    def _unless_other(self, text: str) -> str:
        """Return *text* without its condition; empty if that is false."""
        condition, blank, rest = text.replace("\t", " ", 1).partition(" ")
        is_reversed = condition.startswith("@^")
        holds = (condition.removeprefix("@").removeprefix("^") == self._config_id) != is_reversed
        return rest.lstrip(" \t") if blank and holds else ""

    def _define(self, name: str, value: str) -> None:
        lines = [value.removesuffix("\\").rstrip(" \t")]
        while value.endswith("\\") and (found := self._next()) is not None and found[1]:
            value = found[1]
            lines.append(value.removesuffix("\\").rstrip(" \t"))
        self._variables[name] = tuple(line for line in lines if line) or ("",)

    def _replace_one(self, place: FileLine, text: str) -> str | None:
        """Return *text* with its first known variable replaced; None if it has none.

        Further lines of the value are read next.
        """
        for match in _USE.finditer(text):
            name = match[1] or match[2]
            if name in _NO_VALUE and name not in self._variables:
                raise UnreadableError(place, f"${name} {_NO_VALUE[name]}; write what is meant in its place")
            value = self._variables.get(name)
            if value is None or (len(value) > 1 and match.end() < len(text)):
                continue
            if len(value) > 1:
                self._push(place, iter([(place, line) for line in value[1:]]))
            return text[: match.start()] + value[0] + text[match.end() :]
        return None

    def _repeated(self, place: FileLine, text: str) -> _Source:
        if (match := _SEQUENCE.fullmatch(text)) is not None:
            values = self._numbers(place, match[3])
            if match[1] and values and (values[0] < 0 or values[-1] < 0):
                raise UnreadableError(place, "~SEQx has no negative numbers; write ~SEQ")
            form = "x" if match[1] else "d"
            return self._each(place, match[4], (match[2],), [(format(value, form),) for value in values])
        if (match := _LIST.fullmatch(text)) is not None:
            names, sets = _items(match[1]), _sets(match[2])
            if not names or any(len(values) > len(names) for values in sets):
                raise UnreadableError(
                    place, "this ~LST has a set with more values than names; write the same number"
                )
            filled = [values + ("",) * (len(names) - len(values)) for values in sets]
            return self._each(place, match[3], names, filled)
        raise UnreadableError(
            place,
            "this is not a repetition; write ~SEQ(NAME, START, STEP, END) or ~LST(NAME, VALUE, VALUE) and a line",
        )

    def _numbers(self, place: FileLine, text: str) -> range:
        for _ in range(MOST_REPLACED):
            replaced = self._replace_one(place, text)
            if replaced is None:
                break
            text = replaced[:LONGEST]
        matches = [_NUMBER.fullmatch(each.strip(" \t")) for each in text.split(",")]
        numbers = [_strtol(match) for match in matches if match is not None]
        if len(numbers) != len(matches) or not 1 <= len(numbers) <= 3:
            raise UnreadableError(place, "the limits of this ~SEQ are not numbers; write START, STEP, END")
        last = numbers[-1]
        if len(numbers) == 1:
            start, step = (-1 if last < 0 else 1), (-1 if last < 1 else 1)
        elif len(numbers) == 2:
            start = numbers[0]
            step = 1 if start <= last else -1
        else:
            start, step = numbers[0], numbers[1]
        if not step or (start < last and step < 0) or (start > last and step > 0):
            raise UnreadableError(place, "this ~SEQ never ends; write a STEP that leads from START to END")
        values = range(start, last + (1 if step > 0 else -1), step)
        if len(values) > MOST_LINES:
            raise UnreadableError(place, f"this ~SEQ has more than {MOST_LINES} numbers; write fewer")
        return values

    def _each(
        self, place: FileLine, text: str, names: tuple[str, ...], sets: Sequence[tuple[str, ...]]
    ) -> _Source:
        for values in sets:
            for name, value in zip(names, values, strict=True):
                self._variables[name] = (value,)
            yield place, text

    def _is_include(self, place: FileLine, text: str) -> bool:
        match = _INCLUDE.fullmatch(text)
        if match is None:
            return False
        pattern = match[2].strip(" \t").strip('"')
        files = self._include(pattern, place.path)
        if not files and match[1]:
            raise UnreadableError(place, f"{text} names no file that can be read; correct the name")
        if not files:
            self._remarks.add(place, text, "the file does not exist, so its content is missing here")
        for file in reversed(files):
            self._push(place, _lines_of(file))
        return True


def _lines_of(file: File) -> _Source:
    for number, line in enumerate(file.text.removeprefix("\ufeff").split("\n"), 1):
        place = FileLine(file.path, number)
        if "\0" in line:
            raise UnreadableError(
                place, "contains a null character, so this is not text; name a configuration file"
            )
        yield place, _without_comment(place, line.rstrip("\r"))


def _without_comment(place: FileLine, line: str) -> str:
    """Return *line* without surrounding blanks and without its comment (decomment).  Raises UnreadableError."""
    kept: list[str] = []
    text, index, is_quoted = line.strip(" \t"), 0, False
    while index < len(text):
        character = text[index]
        following = text[index + 1 : index + 2]
        if character == '"':
            is_quoted = not is_quoted
        elif character == "\\" and following:
            kept.append(following if not is_quoted and following in "#!" else character + following)
            index += 2
            continue
        elif character in "#!" and not is_quoted:
            break
        kept.append(character)
        index += 1
    if is_quoted:
        raise UnreadableError(place, 'a " is not closed; close it in the same line')
    return "".join(kept).rstrip(" \t")


def _pieces(place: FileLine, text: str) -> Iterator[str]:
    """Yield *text* split at its braces."""
    while text:
        if text[0] in "{}":
            yield text[0]
            text = text[1:].lstrip(" \t")
            continue
        match = _BRACE.match(text)
        assert match is not None
        if not match.end():
            raise UnreadableError(place, 'a " is not closed; close it in the same line')
        yield match[0].rstrip(" \t")
        text = text[match.end() :]


def _strtol(match: re.Match[str]) -> int:
    digits = match[2]
    base = 16 if digits[:2] in {"0x", "0X"} else 8 if digits.startswith("0") and len(digits) > 1 else 10
    return int(match[1] + digits, base)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip(" \t") for item in text.strip("{} \t").split(","))


def _sets(text: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    index = 0
    while index < len(text):
        match = _SET.match(text, index)
        if match is None or match.end() == index:
            break
        found.append(_items(match[1]) if match[1] is not None else (match[2].strip(" \t"),))
        index = match.end()
    return found
