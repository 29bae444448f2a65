"""Words of a line as keepalived splits them, in two ways.

Most directives are split at white space, and text in double quotes is one word.  Commands and regular expressions are
split again from the same line, with single quotes and escapes, too, so that shell commands and PCRE expressions can be
written.
"""

from __future__ import annotations

import re

# Specification (lib/parser.c of keepalived 2.2.7)
BLANKS = " \t\f\n\r\v"
CONTROLS = {"a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_WORD = re.compile(r'"([^"]*)"|([^ \t\f\n\r\v"]+)')
_ESCAPE = re.compile(r"x([0-9a-fA-F]+)|c(.)|([0-7]{1,3})|(.)", re.DOTALL)


def split(text: str) -> tuple[str, ...]:
    """Return the words of *text*.  An unclosed quote ends the words (alloc_strvec)."""
    if text.count('"') % 2:
        text = text[: text.rindex('"')]
    return tuple(match[1] if match[1] is not None else match[2] for match in _WORD.finditer(text))


def split_escaped(text: str) -> tuple[str, ...]:
    """Return the words of *text* with quotes of both kinds and escapes undone (alloc_strvec_quoted_escaped).

    Raises ValueError for an unclosed quote, or an escape at the end; its message continues after *text*.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote, index = "", 0
    while index < len(text):
        character = text[index]
        index += 1
        if character == "\\":
            match = _ESCAPE.match(text, index)
            if match is None:
                raise ValueError("ends with a backslash")
            word = [*(word or ()), _unescaped(match)]
            index = match.end()
        elif quote:
            assert word is not None
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "\"'":
            quote, word = character, word or []
        elif character in BLANKS:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word or []
            word.append(character)
    if quote:
        raise ValueError(f"has a {quote} that is not closed")
    return tuple(words) if word is None else (*words, "".join(word))


def _unescaped(match: re.Match[str]) -> str:
    hexadecimal, control, octal, other = match.groups()
    if hexadecimal is not None:
        return chr(int(hexadecimal, 16) & 0xFF)
    if control is not None:
        return chr(ord(control) & 0x1F)
    if octal is not None:
        return chr(int(octal, 8) & 0xFF)
    return CONTROLS.get(other, other)
