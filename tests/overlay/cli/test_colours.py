from __future__ import annotations

import re

from overlay.cli.colours import are_wanted, paint_status

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
