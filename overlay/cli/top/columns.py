"""The columns of the table of peers, and which of them fit a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.cli.top.model import UNKNOWN, loss_text, rate_text, short_rate_text, sparkline, trip_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.cli.top.model import Row

# Ours
LEAST_NAME, MOST_NAME = 8, 32
LEAST_SPARK, MOST_SPARK = 7, 60
GAP = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column; columns with a higher *rank* are left out first if there is no room, those of one rank together."""

    title: str
    width: int
    text: Callable[[Row], str]
    rank: int
    is_right: bool = True


def _dropping(row: Row) -> str:
    if row.dropping is None:
        return UNKNOWN
    return "0" if not row.dropping else f"{row.dropping:.1f}" if row.dropping < 10 else f"{row.dropping:.0f}"


COLUMNS = (
    Column("STATE", 11, lambda row: row.state, 0, is_right=False),
    Column("RECEIVED", 10, lambda row: rate_text(row.received), 1),
    Column("SENT", 10, lambda row: rate_text(row.sent), 1),
    Column("RTT", 8, lambda row: trip_text(row.round_trip), 3),
    Column("LOSS", 5, lambda row: loss_text(row.loss), 4),
    Column("MTU", 5, lambda row: UNKNOWN if row.mtu is None else str(row.mtu), 5),
    Column("DROP/s", 6, _dropping, 6),
)
"""What a wide terminal shows."""
SHORT = {
    "RECEIVED": Column("RECV/s", 6, lambda row: short_rate_text(row.received), 1),
    "SENT": Column("SENT/s", 6, lambda row: short_rate_text(row.sent), 1),
}
"""What takes the place of columns, by title, before one of them would have to be left out."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What fits into a width: the room for names, the columns, and the room for a sparkline, 0 for none."""

    name: int
    columns: tuple[Column, ...]
    spark: int


def fit(width: int, names: Sequence[str]) -> Layout:
    """Return what fits into *width* columns of a terminal, for the given *names*."""
    name = max(LEAST_NAME, min(MOST_NAME, max(map(len, names), default=LEAST_NAME)))
    columns = list(COLUMNS)

    def taken() -> int:
        return name + sum(column.width + GAP for column in columns)

    while columns and taken() > width:
        least = min(LEAST_NAME, name)
        if name > least and taken() - name + least <= width:
            name -= taken() - width
            break
        last = max(column.rank for column in columns)
        shorter = [SHORT.get(column.title, column) if column.rank == last else column for column in columns]
        columns = shorter if shorter != columns else [each for each in columns if each.rank < last]
    name = min(name, width)
    room = width - taken() - GAP
    return Layout(name, tuple(columns), min(room, MOST_SPARK) if room >= LEAST_SPARK else 0)


def header(layout: Layout) -> str:
    """Return the titles."""
    cells = [_cell("PEER", layout.name)]
    cells += [_cell(each.title, each.width, is_right=each.is_right) for each in layout.columns]
    if layout.spark:
        cells.append(_cell("HISTORY", layout.spark, is_right=True))
    return " ".join(cells)


def line(row: Row, layout: Layout, *, is_plain: bool = False) -> str:
    """Return a row as text."""
    cells = [_cell(row.name, layout.name)]
    cells += [_cell(each.text(row), each.width, is_right=each.is_right) for each in layout.columns]
    if layout.spark:
        cells.append(sparkline(row.past, layout.spark, is_plain=is_plain))
    return " ".join(cells)


def _cell(text: str, width: int, *, is_right: bool = False) -> str:
    cut = text if len(text) <= width else text[: max(width - 1, 0)] + "~"[:width]
    return cut.rjust(width) if is_right else cut.ljust(width)
