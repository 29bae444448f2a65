"""Figures of interleaved rounds: kept by column and name, shown as medians with their ratios, written as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.console import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass
class Figures:
    """What was measured: values by column ("hosts, one flow") and by who was measured."""

    reference: str
    """Whose median the others' are divided by, in each column that has it."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def note(self, column: str, name: str, value: float) -> None:
        """Keep one value."""
        self.values.setdefault(column, {}).setdefault(name, []).append(value)

    def median(self, column: str, name: str) -> float | None:
        """Return the median of what was noted, None if nothing was."""
        values = self.values.get(column, {}).get(name)
        return statistics.median(values) if values else None

    def show(self) -> None:
        """Print a table for each column."""
        for column, measured in self.values.items():
            base = self.median(column, self.reference)
            say(f"\n{column:40} {'median':>12} {'least':>12} {'most':>12}", end="")
            say(f"  x {self.reference}" if base else "")
            for name, values in measured.items():
                median = statistics.median(values)
                say(f"  {name:38} {median:12.3f} {min(values):12.3f} {max(values):12.3f}", end="")
                say(f" {median / base:8.2f}" if base else "")


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("overlay", "cryptography", "numpy")},
    }


def write(path: Path | None, options: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write *results*, with machine and options beside them, to *path*, unless there is none."""
    if path is not None:
        told = {name: value for name, value in options.items() if name != "json"}
        content = {"machine": machine(), "options": told, **results}
        path.write_text(json.dumps(content, indent=1, default=str) + "\n")
