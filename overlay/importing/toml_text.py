"""TOML as text: correctly quoted strings, and tables that people can read.

Any TOML 1.0 parser reads the text as the same values (https://toml.io/en/v1.0.0).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Value: TypeAlias = "str | int | float | tuple[Value, ...] | Mapping[str, Value]"
"""A value; booleans are integers.  Tuples are arrays."""

# Specification
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
ESCAPES = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r", '"': r"\"", "\\": r"\\"}

# Ours
WIDTH = 110  # of a line with an array; the items of a longer one are on separate lines
INDENT = "    "


def format_key(key: str) -> str:
    """Return *key* in the form that a table or a header needs."""
    return key if BARE_KEY.fullmatch(key) else format_string(key)


def format_string(text: str) -> str:
    """Return *text* in double quotes.  A surrogate, which TOML cannot represent, becomes U+FFFD."""
    return f'"{"".join(map(_escaped, text))}"'


def format_value(value: Value) -> str:
    """Return *value* on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f"{int(value)}" if value.is_integer() else f"{value:.6f}".rstrip("0")
        case str():
            return format_string(value)
        case tuple():
            return f"[{', '.join(map(format_value, value))}]"
        case _:
            items = ", ".join(f"{format_key(key)} = {format_value(each)}" for key, each in value.items())
            return f"{{ {items} }}" if items else "{}"


def format_table(header: tuple[str, ...], values: Iterable[tuple[str, Value]]) -> str:
    """Return the table *header* with *values*, ending with a line feed."""
    lines = [f"[{'.'.join(map(format_key, header))}]"]
    for key, value in values:
        line = f"{format_key(key)} = {format_value(value)}"
        if isinstance(value, tuple) and len(line) > WIDTH:
            items = "".join(f"{INDENT}{format_value(each)},\n" for each in value)
            line = f"{format_key(key)} = [\n{items}]"
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def format_comment(text: str) -> str:
    """Return *text* as lines of a comment."""
    return "".join(f"# {_printable(line)}".rstrip() + "\n" for line in text.split("\n"))


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def _escaped(character: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    number = ord(character)
    if 0xD800 <= number <= 0xDFFF:
        return "\ufffd"
    if character.isprintable():
        return character
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
