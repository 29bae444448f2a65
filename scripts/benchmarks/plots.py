"""A program that draws the results of scripts/bench: python -m scripts.benchmarks.plots FILE FOLDER.

It writes PNG files: throughput, latency (the cumulative distribution of round trips), cost in processor time, and
scaling, if contenders were measured with several numbers of peers.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from scripts.benchmarks.report import CPU, PING, TCP, column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

Medians = dict[str, float]
PLACE_COLOURS = {"hosts": "#9db8d2", "containers": "#27598c"}
LABEL = re.compile(r"(?P<name>.*?)( \+(?P<more>\d+) peers)?")


def draw(content: Mapping[str, Any], folder: Path) -> None:
    """Write each file for which there are figures."""
    places: list[str] = content["options"]["places"]
    subtitle = f"{content['machine']['cpu']}, {content['machine']['cores']} cores; {content['underlay']}"
    bars(content, places, TCP, "Throughput", subtitle).savefig(folder / "throughput.png")
    if any(medians(content, CPU, place) for place in places):  # the kernel's own work is not counted
        bars(content, places, CPU, "Processor time", subtitle).savefig(folder / "cost.png")
    latency(content, places, subtitle).savefig(folder / "latency.png")
    if len(content["options"]["peers"]) > 1:
        scaling(content, places[-1], subtitle).savefig(folder / "scaling.png")


def medians(content: Mapping[str, Any], what: str, place: str) -> Medians:
    """Return the medians by contender."""
    measured: dict[str, list[float]] = content["results"].get(column(what, place), {})
    return {name: statistics.median(values) for name, values in measured.items()}


def bars(content: Mapping[str, Any], places: Sequence[str], what: str, title: str, subtitle: str) -> Figure:
    """Return a bar for each contender and place, with the range from the least to the greatest value."""
    names = list(dict.fromkeys(name for place in places for name in medians(content, what, place)))
    figure = Figure(figsize=(9, 1.6 + 0.28 * len(names) * len(places)), layout="constrained", dpi=120)
    axes = figure.subplots()
    height = 0.8 / len(places)
    for number, place in enumerate(places):
        found = medians(content, what, place)
        values = content["results"].get(column(what, place), {})
        at = [index + number * height for index, name in enumerate(names) if name in found]
        middle = [found[name] for name in names if name in found]
        spread = [
            [found[name] - min(values[name]) for name in names if name in found],
            [max(values[name]) - found[name] for name in names if name in found],
        ]
        drawn = axes.barh(
            at, middle, height, label=place, color=PLACE_COLOURS[place], xerr=spread, ecolor="#888888"
        )
        axes.bar_label(drawn, [f"{value:.2g}" for value in middle], padding=3, fontsize=8)
    axes.set_yticks([index + height * (len(places) - 1) / 2 for index in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(what)
    finish(figure, axes, title, subtitle)
    return figure


def latency(content: Mapping[str, Any], places: Sequence[str], subtitle: str) -> Figure:
    """Return the distribution of the round trips of each contender."""
    figure = Figure(figsize=(9, 5 * len(places)), layout="constrained", dpi=120)
    rows = figure.subplots(len(places), squeeze=False)[:, 0]
    for axes, place in zip(rows, places, strict=True):
        for number, (name, rounds) in enumerate(content["ping_ms"].get(place, {}).items()):
            times = sorted(time for times in rounds for time in times)
            shares = [(index + 1) / len(times) for index in range(len(times))]
            axes.step(times, shares, where="post", label=name, color=f"C{number % 10}", ls=style(number))
        axes.set_xscale("log")
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"ping round trip between {place}, ms")
        axes.set_ylabel("share that took no longer")
        finish(figure, axes, "Latency", subtitle)
    return figure


def scaling(content: Mapping[str, Any], place: str, subtitle: str) -> Figure:
    """Return throughput and round trip over the number of peers in the table."""
    figure = Figure(figsize=(9, 8), layout="constrained", dpi=120)
    rows = figure.subplots(2, sharex=True)
    for axes, what in zip(rows, (TCP, PING), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for label, value in medians(content, what, place).items():
            found = LABEL.fullmatch(label)
            assert found is not None
            lines.setdefault(found["name"], []).append((int(found["more"] or 0), value))
        for number, (name, points) in enumerate(lines.items()):
            if len(points) > 1:
                more, values = zip(*sorted(points), strict=True)
                axes.plot(more, values, marker="o", label=name, color=f"C{number}")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{place}: {what}")
        axes.set_xlabel("peers in the table besides the two that communicate")
        finish(figure, axes, "Scaling with peers", subtitle)
    return figure


def style(number: int) -> str:
    """Return the line style of the contender *number*, because there are more contenders than colours."""
    return "-" if number < 10 else "--"


def finish(figure: Figure, axes: Axes, title: str, subtitle: str) -> None:
    """Add the title and the legend, and write the file."""
    figure.suptitle(f"{title}\n", fontweight="bold")
    axes.set_title(subtitle, fontsize=7)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
