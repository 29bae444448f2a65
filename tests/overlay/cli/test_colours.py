from __future__ import annotations

import re

import pytest

from overlay.cli.colours import are_wanted, paint_event, paint_status

TEXT = """\
node        up
note        rp_filter is strict
            and more
dropped     tokyo: replay 3

NAME    STATE        ENDPOINT
tokyo   up           192.0.2.2:51820
up      unreachable  -
rome    idle         -"""


def test_states_and_labels_are_painted_and_nothing_else_changes():
    painted = paint_status(TEXT)

    assert re.sub(r"\033\[\d+m", "", painted) == TEXT
    assert "\033[33mnote\033[0m        rp_filter" in painted
    assert "tokyo   \033[32mup\033[0m " in painted
    assert "up      \033[31munreachable\033[0m " in painted
    assert "node        up\n" in painted  # a name
    assert "rome    idle" in painted


def test_state_of_one_peer_is_painted():
    assert paint_status("peer        up\nstate       silent (wireguard)") == (
        "peer        up\nstate       \033[31msilent\033[0m (wireguard)"
    )


def test_colours_are_not_wanted_where_no_terminal_is():
    assert not are_wanted({"TERM": "xterm"})


@pytest.mark.parametrize(("level", "colour"), [("WARNING", "33"), ("ERROR", "31"), ("INFO", None)])
def test_levels_that_need_a_person_are_in_colour(level, colour):
    line = f"2026-01-31T12:00:00+01:00 {level} peer lost peer=WARNING : ERROR "

    painted = paint_event(line)

    assert painted == (line if colour is None else line.replace(level, f"\033[{colour}m{level}\033[0m", 1))
