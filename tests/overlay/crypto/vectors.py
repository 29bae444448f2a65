"""Literal bytes from documents and from other implementations."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> dict[str, Any]:
    """Return what ``tests/vectors/NAME.toml`` holds."""
    return tomllib.loads((_VECTORS / f"{name}.toml").read_text(encoding="utf-8"))


def unhex(table: dict[str, Any], *names: str) -> list[bytes]:
    """Return the named values of *table* as bytes."""
    return [bytes.fromhex(table[name]) for name in names]
