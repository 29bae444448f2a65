"""A capture while it runs: its limits, its turns, and how it ends."""

from __future__ import annotations

import os

import pytest

from overlay.capturing.entry import Entry, Place
from overlay.cli.capture.outputs import ReaderGoneError
from overlay.cli.capture.session import TURN, Limits, Session
from overlay.cli.exits import Failure


class Source:
    """Gives *count* packets, and then nothing."""

    places = (Place.IN,)
    received = missed = 0

    def __init__(self, count, missed=0, error=None, wall_ns=1):
        """The times of the packets are from *wall_ns* on, and go on by one."""
        self._count, self._missed, self._error, self._wall_ns = count, missed, error, wall_ns
        self._read, self._write = os.pipe()
        os.write(self._write, b"x")
        self.turns = 0

    def fileno(self):
        return self._read

    def read(self):
        self.turns += 1
        while self._count:
            self._count -= 1
            self._wall_ns += 1
            yield Entry(Place.IN, self._wall_ns - 1, b"abc", 3)
        os.read(self._read, 1)
        if self._error is not None:
            raise self._error

    def count(self):
        self.received, self.missed = 10, self._missed

    def close(self):
        os.close(self._read)
        os.close(self._write)


class Output:
    def __init__(self, fails_after=None):
        self.taken, self.counts, self._fails_after = 0, None, fails_after

    def take(self, _):
        self.taken += 1
        if self.taken == self._fails_after:
            raise ReaderGoneError

    def flush(self):
        pass

    def end(self, counts):
        self.counts = counts


@pytest.fixture
def make():
    made = []

    def build(*arguments, **named):
        made.append(Source(*arguments, **named))
        return made[-1]

    yield build
    for each in made:
        each.close()


def test_capture_ends_after_so_many_packets(make):
    output = Output()
    session = Session([make(10)], output, Limits(count=3))

    session.run()

    assert output.taken == session.captured == 3
    assert session.finish() == "3 packets captured, none missed"
    assert output.counts == {Place.IN: (10, 0)}


def test_capture_ends_after_so_long(make):
    moments = iter([0.0, 0.0, 0.5, 0.9, 0.99, 1.0, 1.1, 1.2])
    output = Output()

    Session([make(5)], output, Limits(duration=1.0), now=lambda: next(moments)).run()

    assert output.taken == 5


def test_source_that_has_much_leaves_others_their_turn(make):
    busy, other = make(3 * TURN), make(1)

    Session([busy, other], Output(), Limits(count=TURN + 1)).run()

    assert (busy.turns, other.turns) == (1, 1)


def test_what_had_come_before_the_end_is_taken_and_nothing_later(make):
    sources = [make(TURN + 1, wall_ns=1), make(TURN + 5, wall_ns=1000 - TURN), make(3, wall_ns=1001)]
    output = Output()
    session = Session(sources, output, Limits(), wall_ns=lambda: 1000)

    session.take_rest()

    assert output.taken == session.captured == (TURN + 1) + (TURN + 1)


def test_what_had_come_before_the_end_is_taken_up_to_the_limit(make):
    output = Output()
    session = Session([make(10), make(10)], output, Limits(count=13), wall_ns=lambda: 100)

    session.take_rest()

    assert output.taken == 13


def test_source_that_never_ends_keeps_no_capture_from_its_end(make):
    moments = iter([0.0, 0.1, 0.2, 0.9, 1.1, 1.2, 1.3])
    output = Output()

    Session([make(1 << 60)], output, Limits(), now=lambda: next(moments), wall_ns=lambda: 1 << 62).take_rest()

    assert output.taken == 3 * TURN


def test_reader_that_left_keeps_no_capture_from_its_end(make):
    session = Session([make(10)], Output(fails_after=1), Limits(), wall_ns=lambda: 100)

    session.take_rest()

    assert session.captured == 0


def test_reader_that_left_ends_the_capture(make):
    session = Session([make(10)], Output(fails_after=4), Limits())

    session.run()

    assert session.captured == 3


def test_source_that_ends_is_told_of_and_what_was_missed_too(make):
    session = Session([make(2, missed=7, error=Failure("the agent has stopped"))], Output(), Limits())

    with pytest.raises(Failure, match="the agent has stopped"):
        session.run()

    assert session.finish() == "2 packets captured, 7 missed: they came faster than they were read"
