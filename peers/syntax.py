"""Syntax errors of a peers file: what tomllib found, and how the line is written instead."""

from __future__ import annotations

import re

PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

# What tomllib's message begins with, and the remedy; the first that fits
WRITE_VALUE = 'write text in double quotes, as in endpoint = "192.0.2.10"'
REMEDIES = (
    ("Expected newline", f"write one key on each line, and {WRITE_VALUE.removeprefix('write ')}"),
    ("Expected '=' after a key", 'write key = value, as in endpoint = "192.0.2.10"'),
    ("Expected ']'", "close the name of the table with a bracket, as in [peers.NAME]"),
    ("Unclosed array", 'close the list with a bracket, as in subnets = ["10.244.1.0/24"]'),
    ("Invalid value", f"{WRITE_VALUE}, numbers without quotes"),
    ("Invalid date", WRITE_VALUE),
    ("Illegal character '\\n'", "close the double quotes on the line where they open"),
    ("Illegal character '\\r'", "close the double quotes on the line where they open"),
    ("Unterminated string", "close the double quotes on the line where they open"),
    ("Unescaped '\\'", "write a backslash twice, or the text in single quotes"),
    ("Invalid hex value", "write a backslash twice, or the text in single quotes"),
)
REMEDY = 'write [TABLE] lines, key = value lines such as endpoint = "192.0.2.10", and comments behind #'


def describe(text: str, message: str) -> tuple[int | None, str]:
    """Return the line of *text* that tomllib's *message* is about, None if not known, and a sentence with a remedy."""
    match = PLACE.search(message)
    if match is None:
        return None, f"this is not TOML: {_lower(message)}; {REMEDY}"
    line = int(match[1]) if match[1] else text.rstrip("\n").count("\n") + 1
    found = message[: match.start()]
    if found.startswith("Cannot declare"):
        return line, "this table is here twice; write each table once"
    if found.startswith("Cannot overwrite"):
        return line, "this key is here twice; write it once"
    remedy = next((remedy for beginning, remedy in REMEDIES if found.startswith(beginning)), REMEDY)
    return line, f"this is not TOML: {_lower(found)}; {remedy}"


def _lower(sentence: str) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}"
