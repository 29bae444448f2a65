"""Numbers of things as people read them."""

from __future__ import annotations


def count(number: int, one: str, several: str | None = None) -> str:
    """Return *number* with its noun in the right number: ``1 peer``, ``3 peers``; *several* if that has no s alone."""
    return f"{number} {one}" if number == 1 else f"{number} {several or one + 's'}"
