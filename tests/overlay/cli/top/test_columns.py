"""Which columns fit."""

from __future__ import annotations

import pytest

from overlay.cli.top.columns import COLUMNS, fit, header, line
from overlay.cli.top.model import Row

ROW = Row("tokyo", "up", "wireguard", None, (), 1.0e6, None, 0.01, 0.0, 1420, 2.5, {}, (), (1.0, 2.0))


@pytest.mark.parametrize("width", [1, 8, 20, 40, 79, 80, 120, 300])
@pytest.mark.parametrize("names", [[], ["tokyo"], ["x" * 63]])
def test_a_line_fits_whatever_the_width(width, names):
    layout = fit(width, names)

    assert len(header(layout)) <= width
    assert len(line(ROW, layout)) <= width


def test_in_80_columns_all_are_there():
    layout = fit(80, ["tokyo"])

    assert layout.columns == COLUMNS
    assert header(layout).split() == ["PEER", *(each.title for each in COLUMNS), "HISTORY"]
    assert line(ROW, layout).split() == [
        "tokyo",
        "up",
        "977",
        "KiB/s",
        "-",
        "10.0",
        "ms",
        "0%",
        "1420",
        "2.5",
        "▅█",
    ]


def test_the_less_important_columns_go_first():
    titles = [each.title for each in fit(45, ["tokyo"]).columns]

    assert titles == ["STATE", "RECEIVED", "SENT"]


def test_in_40_columns_both_directions_are_there_abbreviated():
    layout = fit(40, ["tokyo"])

    assert header(layout).split() == ["PEER", "STATE", "RECV/s", "SENT/s"]
    assert line(ROW, layout).split() == ["tokyo", "up", "977Ki", "-"]


def test_one_direction_is_never_shown_without_the_other():
    for width in range(1, 81):
        titles = {each.title for each in fit(width, ["tokyo"]).columns}
        assert len(titles & {"RECEIVED", "RECV/s"}) == len(titles & {"SENT", "SENT/s"})


def test_a_long_name_is_cut_before_columns_are_left_out():
    layout = fit(80, ["x" * 30])

    assert layout.columns == COLUMNS
    assert (
        line(Row("x" * 30, "up", "", None, (), None, None, None, None, None, None, {}, ()), layout)
        .split()[0]
        .endswith("~")
    )
