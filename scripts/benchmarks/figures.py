"""Figures of interleaved rounds: kept by column and name, shown as medians with their ratios, written as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.console import say

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Figures:
    """Measured values by column ("hosts, one flow") and by name."""

    reference: str
    """The name whose median the others are divided by, in each column that has it."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    second_reference: str | None = None
    """Another such name, whose ratios are shown next to it."""

    def note(self, column: str, name: str, value: float) -> None:
        """Record one value."""
        self.values.setdefault(column, {}).setdefault(name, []).append(value)

    def median(self, column: str, name: str) -> float | None:
        """Return the median of the values; None if there are none."""
        values = self.values.get(column, {}).get(name)
        return statistics.median(values) if values else None

    def ratio(self, column: str, name: str, reference: str | None) -> float | None:
        """Return the median of *name* divided by that of *reference*, None if either is missing."""
        median = self.median(column, name)
        base = self.median(column, reference) if reference is not None else None
        return median / base if median is not None and base else None

    def show(self) -> None:
        """Print a table for each column."""
        for column, measured in self.values.items():
            references = [
                name for name in (self.reference, self.second_reference) if name and self.median(column, name)
            ]
            say(f"\n{column:40} {'median':>12} {'least':>12} {'most':>12}", end="")
            say("".join(f"  x {name}" for name in references))
            for name, values in measured.items():
                median = statistics.median(values)
                say(f"  {name:38} {median:12.3f} {min(values):12.3f} {max(values):12.3f}", end="")
                ratios = (
                    (self.ratio(column, name, reference), len(reference) + 4) for reference in references
                )
                say("".join(f"{ratio:{width}.2f}" for ratio, width in ratios))


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    return {
        "cpu": f"{processor()} ({', '.join(aes()) or 'no AES'})",
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": f"{platform.python_version()}, {Path(sys.executable).resolve()}",  # builds differ by half
        **{name: version(name) for name in ("overlay", "cryptography", "numpy")},
    }


def processor() -> str:
    """Return the model of the processor by the kernel's name."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def aes() -> list[str]:
    """Return the instructions for fast AES that the processor has."""
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = found[1].split() if found else []
    return [name for name in ("aes", "vaes", "avx2", "avx512f") if name in flags]


def write(path: Path | None, options: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write *results*, with machine and options, to *path*, unless that is None."""
    if path is not None:
        told = {name: value for name, value in options.items() if name != "json"}
        content = {"machine": machine(), "options": told, **results}
        path.write_text(json.dumps(content, indent=1, default=str) + "\n")
