"""The line of a key in TOML text.  ``tomllib`` reports lines only for syntax errors, so this module finds them."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers.errors import Keys

TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\r]+ | \#[^\n]* )
    | (?P<newline> \n )
    | (?P<string>  \"{3} (?: \\. | (?!\"{3}) [^\\] )* (?: \"{3,5} | \Z )
                 | '{3}  (?: (?!'{3}) . )*            (?: '{3,5} | \Z )
                 | \" (?: \\[^\n] | [^"\\\n] )* \"?
                 | ' [^'\n]* '? )
    | (?P<mark>    [][{}=,.] )
    | (?P<bare>    [^][{}=,.\s"'\#]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def find_line(text: str, keys: Keys) -> int | None:
    """Return the line, from 1, where *keys* is in *text*.

    If it is not there, it is the line of the nearest key or table around it, None without any.  Any text gives an
    answer; it is right for text that is TOML.
    """
    line, depth = None, 0
    for found, found_line in _positions(text):
        common = 0
        while common < min(len(found), len(keys)) and found[common] == keys[common]:
            common += 1
        if common > depth:
            line, depth = found_line, common
    return line


def _positions(text: str) -> Iterator[tuple[Keys, int]]:
    """Yield each header, key and array item of *text* with its line, in the order of the text."""
    line = 1
    table: Keys = ()  # of the last header
    open_values: list[tuple[Keys, int | None]] = []  # arrays with the index of their item, inline tables
    parts: list[str] = []  # of the key or header being read
    parts_line = 1
    arrays: dict[Keys, int] = {}  # of tables, [[NAME]]: how many of them came before the last one
    is_array = False  # of tables, in the header being read
    here: Keys = ()  # the key whose value is being read
    expected = "key"  # or "header", "value", "end" of a value, of a header or of a line
    for match in TOKEN.finditer(text):
        kind, lexeme = match.lastgroup, match[0]
        container, index = open_values[-1] if open_values else (table, None)
        if kind == "newline":
            line += 1
            if not open_values:
                expected, parts = "key", []
        elif kind == "space":
            pass
        elif expected in {"key", "header"} and kind != "mark":
            parts_line = parts_line if parts else line
            parts.append(_unquote(lexeme))
        elif expected == "key" and lexeme == "[" and not parts and not open_values:
            expected, is_array = "header", False
        elif expected == "header" and lexeme == "[" and not parts:
            is_array = True
        elif expected == "header" and lexeme == "]":
            names = tuple(parts)
            if is_array:
                _begin_item(names, arrays)
                yield names, parts_line
            table = _placed(names, arrays)
            yield table, parts_line
            expected = "end"
        elif expected == "key" and lexeme == "=":
            here = (*container, *parts)
            yield here, parts_line
            expected, parts = "value", []
        elif expected == "value" and lexeme != "]":
            if index is not None:
                here = (*container, index)
                yield here, line
            expected = "end"
            if lexeme == "[":
                open_values.append((here, 0))
                expected = "value"
            elif lexeme == "{":
                open_values.append((here, None))
                expected, parts = "key", []
        elif lexeme in {"]", "}"} and open_values:
            open_values.pop()
            expected, parts = "end", []
        elif lexeme == "," and open_values:
            expected, parts = "value", []
            if index is None:
                expected = "key"
            else:
                open_values[-1] = (container, index + 1)
        line += 0 if kind == "newline" else lexeme.count("\n")


def _begin_item(names: Keys, arrays: dict[Keys, int]) -> None:
    """Count another item of the array of tables *names*; the arrays inside the item before it are not its own."""
    inner = [each for each in arrays if len(each) > len(names) and each[: len(names)] == names]
    for each in inner:
        del arrays[each]
    arrays[names] = arrays.get(names, -1) + 1


def _placed(names: tuple[str, ...], arrays: dict[Keys, int]) -> Keys:
    """Return where the table *names* is: of each of the *arrays* of tables on the way, in the last item."""
    keys: Keys = ()
    for length, name in enumerate(names, 1):
        keys = (*keys, name)
        if (index := arrays.get(names[:length])) is not None:
            keys = (*keys, index)
    return keys


def _unquote(lexeme: str) -> str:
    if lexeme[0] not in "\"'":
        return lexeme
    if "\\" in lexeme:
        try:
            return str(tomllib.loads(f"key = {lexeme}")["key"])
        except ValueError:
            pass
    return lexeme[1:-1]
