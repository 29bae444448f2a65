"""Samples as text: OpenMetrics 1.0, and the older format of Prometheus that people read with curl.

prometheus-client 0.26 takes 7.5 microseconds for each sample, and 10,000 active peers have about 180,000: more than a
second of the agent's time for each scrape.  Here a sample is a line from the start, and tests check it with
prometheus-client and promtool.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.metrics.families import FAMILIES, GAUGE, INFO

if TYPE_CHECKING:
    from collections.abc import Iterator

# Specification: github.com/prometheus/OpenMetrics, specification/OpenMetrics.md; prometheus.io/docs, exposition formats
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

# Ours
LINES_AT_ONCE = 2000  # sent as one piece


class Samples:
    """The samples of one scrape, each a line of its family."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {name: [] for name in FAMILIES}

    def add(self, name: str, value: float | None, **labels: str) -> None:
        """Add one sample, unless its value is None, which means unknown."""
        assert name in FAMILIES and tuple(labels) == FAMILIES[name].labels, (name, labels)  # noqa: PT018  one claim
        if value is not None:
            told = ",".join(f'{label}="{escape(text)}"' for label, text in labels.items())
            self.lines[name].append(
                f"{name}{{{told}}} {number(value)}\n" if told else f"{name} {number(value)}\n"
            )

    def render(self, *, is_openmetrics: bool) -> Iterator[bytes]:
        """Yield the text in pieces.  Families without a sample are left out."""
        for name, lines in self.lines.items():
            if not lines:
                continue
            family = FAMILIES[name]
            base, kind = family.base, family.kind
            if not is_openmetrics:
                base, kind = name, GAUGE if kind == INFO else kind
            head = f"# HELP {base} {escape_help(family.help)}\n# TYPE {base} {kind}\n"
            for at in range(0, len(lines), LINES_AT_ONCE):
                yield (head + "".join(lines[at : at + LINES_AT_ONCE])).encode()
                head = ""
        if is_openmetrics:
            yield b"# EOF\n"


def wants_openmetrics(accept: str) -> bool:
    """Return whether a client that sends *accept* accepts OpenMetrics."""
    return "application/openmetrics-text" in accept.lower()


def number(value: float) -> str:
    """Return *value* in the form of both formats."""
    if isinstance(value, int):
        return str(int(value))
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def escape(text: str) -> str:
    """Return *text* escaped for the value of a label."""
    return text.translate(ESCAPES).encode(errors="replace").decode()


def escape_help(text: str) -> str:
    """Return *text* escaped for a HELP line, which is the same in both formats if it has no quotes."""
    return text.replace("\\", r"\\").replace("\n", r"\n")
