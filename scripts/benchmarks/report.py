"""The results of scripts/bench compare, and how they are shown."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.console import progress, say
from scripts.benchmarks.contenders import Program
from scripts.benchmarks.figures import Figures, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scripts.benchmarks.nodes import Pair

REFERENCE, SECOND_REFERENCE = "wireguard-go", "vxlan"
TCP = "TCP, Gbit/s"
CPU = "CPU s/GB, both ends"
PING = "ping median, ms"
PING_P99 = "ping p99, ms"
MEMORY = "memory of a node, MB"
READY = "time to ready, s"
IPERF3 = Program("iperf3", "iperf3")


@dataclass
class Results:
    """The figures of a comparison, and the conditions under which they were measured."""

    places: Sequence[str]
    underlay: str
    programs: Mapping[str, str]  # versions
    figures: Figures = field(default_factory=lambda: Figures(REFERENCE, second_reference=SECOND_REFERENCE))
    pings: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    """Round trips in milliseconds by place and contender, a list for each round."""

    failures: list[str] = field(default_factory=list)

    def note(self, what: str, pair: Pair, value: float, place: str | None = None) -> None:
        """Record a figure."""
        self.figures.note(column(what, place), pair.label, value)
        # With several numbers of peers, others are divided by the first wireguard-go.
        if pair.name == REFERENCE and not self.figures.median(column(what, place), self.figures.reference):
            self.figures.reference = pair.label

    def keep_pings(self, pair: Pair, place: str, times: list[float]) -> None:
        """Record the round trips themselves."""
        self.pings.setdefault(place, {}).setdefault(pair.label, []).append(times)

    @contextlib.contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Continue the comparison if *what* fails; the failure is reported at once and at the end."""
        try:
            yield
        except (AssertionError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
            reason = str(error).partition("\n")[0]
            progress(f"failed: {reason}")
            self.failures.append(f"{what} ({reason})")

    def content(self) -> dict[str, Any]:
        """Return everything for a JSON file."""
        return {
            "underlay": self.underlay,
            "versions": {**self.programs, "iperf3": IPERF3.version()},
            "references": [self.figures.reference, SECOND_REFERENCE],
            "results": self.figures.values,
            "ping_ms": self.pings,
            "failures": self.failures,
        }


def column(what: str, place: str | None) -> str:
    """Return the name under which a figure is recorded."""
    return what if place is None else f"{place}: {what}"


def show(results: Results) -> None:
    """Print the machine and the conditions, a table for each measurement, and a summary in Markdown."""
    say()
    content = results.content()
    for name, value in {**machine(), **content["versions"], "underlay": results.underlay}.items():
        say(f"{name}: {value}")
    results.figures.show()
    say()
    for line in summary(results):
        say(line)


def summary(results: Results) -> Iterator[str]:
    """Return the lines of a table in Markdown, with the figures of containers if those were measured."""
    figures = results.figures
    place = "containers" if "containers" in results.places else results.places[-1]
    rate = column(TCP, place)
    references = [name for name in (figures.reference, SECOND_REFERENCE) if figures.median(rate, name)]
    others = [column(CPU, place), column(PING, place), column(PING_P99, place), MEMORY, READY]
    heads = [
        f"between {place}",
        TCP,
        *(f"x {name}" for name in references),
        CPU,
        PING,
        PING_P99,
        MEMORY,
        READY,
    ]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for name in figures.values.get(rate, ()):
        cells = [figures.median(rate, name), *(figures.ratio(rate, name, each) for each in references)]
        cells += [figures.median(each, name) for each in others]
        yield f"| {' | '.join([name, *map(rounded, cells)])} |"


def rounded(value: float | None) -> str:
    """Return a figure with its significant digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value >= 0.01 else f"{value:.3f}"
