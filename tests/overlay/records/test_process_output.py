from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.records.process_output import BURST, INTERVAL, LINE_BYTES, ProcessOutput


@pytest.fixture
def output():
    return ProcessOutput()


def test_lines_come_when_they_end(output):
    assert output.feed(b"Trace", 0.0) == []
    assert output.feed(b"back\n  File\nKey", 0.0) == ["Traceback", "  File"]
    assert output.end(0.0) == ["Key"]
    assert output.end(0.0) == []


def test_empty_lines_are_left_out(output):
    assert output.feed(b"\n \r\na\r\n\n", 0.0) == ["a"]


def test_what_could_move_the_cursor_is_shown_as_an_escape_sequence(output):
    assert output.feed(b"\x1b[2J\xff\x00\n", 0.0) == ["\\x1b[2J\N{REPLACEMENT CHARACTER}\\x00"]


def test_line_without_an_end_is_cut_and_its_rest_thrown_away(output):
    first = output.feed(b"x" * 100_000, 0.0)
    assert first == ["x" * LINE_BYTES + "..."]
    assert output.feed(b"x" * 100_000, 0.0) == []
    assert output.feed(b"xxx\nnext\n", 0.0) == ["next"]


def test_a_line_that_one_process_did_not_end_takes_nothing_of_the_next(output):
    output.feed(b"x" * 100_000, 0.0)
    output.end(0.0)

    assert output.feed(b"first\n", 0.0) == ["first"]


def test_processes_one_after_the_other_print_no_more_than_one(output):
    shown = []
    for _ in range(10):
        shown += output.feed(b"line\n" * BURST, 0.0)
        output.end(0.0)

    assert shown == ["line"] * BURST


def test_beyond_a_burst_lines_are_counted(output):
    shown = output.feed(b"line\n" * (BURST + 50), 0.0)

    assert shown == ["line"] * BURST
    assert output.end(0.0) == ["(lines that were not shown: 50)"]


def test_line_comes_again_after_an_interval(output):
    output.feed(b"line\n" * (BURST + 5), 0.0)

    assert output.feed(b"again\nand again\n", INTERVAL) == ["(lines that were not shown: 5)", "again"]
    assert output.end(INTERVAL) == ["(lines that were not shown: 1)"]


@given(st.lists(st.binary(max_size=3000), max_size=30))
def test_whatever_comes_is_bounded_and_printable(pieces):
    output = ProcessOutput()

    shown = [line for piece in pieces for line in output.feed(piece, 0.0)] + output.end(0.0)

    assert len(shown) <= BURST + 1
    assert all(line.isprintable() and len(line) <= 4 * LINE_BYTES + 3 for line in shown)
    assert len(output._rest) <= LINE_BYTES
