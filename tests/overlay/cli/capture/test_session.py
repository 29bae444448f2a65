"""A running capture: its limits, its turns, how it ends, and what it reports then."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from overlay.capturing.entry import CapturePoint, Entry
from overlay.cli.capture import opening
from overlay.cli.capture.ending import Ending
from overlay.cli.capture.outputs import ReaderGoneError
from overlay.cli.capture.session import TURN, Limits, Session
from overlay.cli.exits import Failure


class Source:
    """Yields *count* packets, *at_once* of them at a time, and then nothing; *late* ones after the end."""

    places = (CapturePoint.IN,)

    def __init__(self, count, missed=0, error=None, at_once=1 << 30, late=0):
        self.left, self._count, self._error, self._at_once, self._late = count, count, error, at_once, late
        self.missed = missed
        self._read, self._write = os.pipe()
        os.write(self._write, b"x")
        self.turns = 0
        self._stopped_at = None

    @property
    def received(self):
        return self._count + self.missed

    @property
    def unread(self):
        return max(0, self.left - self._late)

    @property
    def is_drained(self):
        return self._stopped_at is not None and self.unread == 0

    def fileno(self):
        return self._read

    def read(self):
        self.turns += 1
        for _ in range(min(self._at_once, self.left)):
            self.left -= 1
            yield Entry(CapturePoint.IN, 1, b"abc", 3)
        if not self.left:
            os.read(self._read, 1)
        if self._error is not None:
            raise self._error

    def count(self):
        pass

    def stop(self):
        self._stopped_at = self.left

    def close(self):
        os.close(self._read)
        os.close(self._write)


class Output:
    """Takes packets; it *holds* back so many of them, as for a reader that has stalled,
    and *fails* at the one after so many.
    """

    def __init__(self, fails_after=None, error=ReaderGoneError, holds=0):
        self.taken, self.counts, self._fails_after, self._error, self._holds = (
            0,
            None,
            fails_after,
            error,
            holds,
        )

    @property
    def written(self):
        return max(0, self.taken - self._holds)

    def take(self, _):
        if self.taken == self._fails_after:
            raise self._error
        self.taken += 1

    def flush(self):
        pass

    def end(self, counts):
        if self._holds:
            raise KeyboardInterrupt
        self.counts = counts


class Pausing:
    """Makes the capture rest for no time at all, *rests* times; *at_rest* is called before each."""

    def __init__(self, rests=0, at_rest=lambda: None):
        self._rests, self._at_rest = rests, at_rest

    def rest(self):
        self._at_rest()
        self._rests -= 1
        return 1e-9 if self._rests >= 0 else 0.0


@pytest.fixture
def make():
    made = []

    def build(*arguments, **named):
        made.append(Source(*arguments, **named))
        return made[-1]

    yield build
    for each in made:
        each.close()


def session(sources, output=None, *, ending=None, pausing=None, now=None, **limits):
    named = {} if now is None else {"now": now}
    return Session(
        sources, output or Output(), Limits(**limits), ending or Ending(), pausing or Pausing(), **named
    )


def test_capture_ends_after_so_many_packets_and_has_not_missed_those_behind(make):
    output = Output()
    made = session([make(10)], output, count=3)

    made.run()

    assert output.taken == made.captured == 3
    assert made.finish() == "3 packets captured, none missed"
    assert output.counts == {CapturePoint.IN: (10, 0)}


def test_capture_ends_after_so_long(make):
    moments = iter([0.0, 0.0, 0.5, 0.9, 0.99, 1.0, 1.1, 1.2])
    output = Output()

    session([make(5)], output, duration=1.0, now=lambda: next(moments)).run()

    assert output.taken == 5


def test_source_that_has_much_leaves_others_their_turn(make):
    busy, other = make(3 * TURN), make(1)

    session([busy, other], count=TURN + 1).run()

    assert (busy.turns, other.turns) == (1, 1)


def test_reader_that_left_ends_the_capture_and_has_missed_nothing(make):
    made = session([make(10)], Output(fails_after=4))

    made.run()

    assert made.captured == 4
    assert made.finish() == "4 packets captured, none missed"


@pytest.mark.parametrize("limits", [{}, {"count": 3}, {"duration": 0.0}])
def test_reader_that_was_gone_from_the_start_ends_the_capture_too(make, monkeypatch, limits):
    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr(opening, "open_stdout", lambda **_: writes)
    ending, wanted = Ending(), opening.Selection("", 96)
    node = opening.CapturedNode("overlay0", False, (), (), None, None, ())

    with contextlib.closing(opening.open_output(Path("-"), node, wanted, ending)) as output:
        made = session([make(10)], output, ending=ending, **limits)
        made.run()

        assert made.finish().startswith("0 packets captured")


def test_source_that_ends_is_reported_with_what_was_missed(make):
    made = session([make(2, missed=7, error=Failure("the agent has stopped"))])

    with pytest.raises(Failure, match="the agent has stopped"):
        made.run()

    assert made.finish() == "2 packets captured, 7 missed"


def test_what_had_come_before_the_end_is_captured_and_nothing_after_it(make):
    ending, source = Ending(), make(1000, at_once=100, late=300)
    made = session([source], ending=ending, pausing=Pausing(at_rest=ending.ask))

    made.run()
    ending.last(0)

    assert made.finish() == "700 packets captured, none missed"
    assert source.left == 300


def test_what_had_come_before_the_end_is_captured_up_to_the_limit(make):
    ending, output = Ending(), Output()
    made = session([make(10), make(10)], output, ending=ending, pausing=Pausing(at_rest=ending.ask), count=13)

    made.run()
    ending.last(0)

    assert made.finish() == "13 packets captured, none missed"
    assert output.counts == {CapturePoint.IN: (10, 0)}


def test_what_a_stalled_reader_does_not_take_is_missed(make):
    ending, output = Ending(), Output(holds=4)
    made = session([make(10)], output, ending=ending, count=10)

    made.run()

    assert made.finish() == "6 packets captured, 4 missed: they came faster than they were read"


def test_what_cannot_be_read_in_time_at_the_end_is_missed(make):
    moments = iter([0.0, 0.0, 0.0, 0.5, 2.0, 3.0, 4.0])
    ending, output = Ending(), Output()
    made = session(
        [make(10, at_once=3)],
        output,
        ending=ending,
        pausing=Pausing(at_rest=ending.ask),
        now=lambda: next(moments),
    )

    made.run()
    ending.last(0)

    assert made.finish() == "1 packet captured, 9 missed: they came faster than they were read"
    assert output.counts == {CapturePoint.IN: (10, 9)}


@pytest.mark.parametrize(
    ("error", "missed", "said"),
    [
        (ReaderGoneError, 0, "6 missed: the reader had ended"),
        (ReaderGoneError, 3, "9 missed: they came faster than they were read, or the reader had ended"),
        (Failure("No space left"), 0, "6 missed"),
    ],
)
def test_what_is_not_taken_at_the_end_is_missed_for_that_reason(make, error, missed, said):
    ending = Ending()
    made = session(
        [make(10, missed)],
        Output(fails_after=4, error=error),
        ending=ending,
        pausing=Pausing(at_rest=ending.ask),
    )

    made.run()
    ending.last(0)

    assert made.finish() == f"4 packets captured, {said}"
    assert made.failure is (error if isinstance(error, Failure) else None)


def test_what_the_kernel_missed_before_the_reader_ended_came_too_fast(make):
    class Gone(Output):
        def end(self, _):
            raise ReaderGoneError

    made = session([make(10, 3)], Gone(fails_after=4))

    made.run()

    assert made.finish() == "4 packets captured, 3 missed: they came faster than they were read"


def test_full_disk_has_missed_what_is_not_on_it(make):
    made = session([make(10)], Output(fails_after=4, error=Failure("No space left")))

    with pytest.raises(Failure, match="No space left"):
        made.run()

    assert made.finish() == "4 packets captured, 6 missed"


def test_capture_goes_on_after_a_rest(make):
    made = session([make(5)], pausing=Pausing(rests=3), count=5)

    made.run()

    assert made.captured == 5
