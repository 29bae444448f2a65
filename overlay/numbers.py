"""Numbers with nouns, for people."""

from __future__ import annotations


def count(number: int, one: str, several: str | None = None) -> str:
    """Return *number* with its noun, singular or plural: ``1 peer``, ``3 peers``; *several* is the plural if that is
    not noun plus s.
    """
    return f"{number} {one}" if number == 1 else f"{number} {several or one + 's'}"
