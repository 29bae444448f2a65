"""The end of a capture: signals interrupt what waits, and nothing else."""

from __future__ import annotations

import os
import signal
import time

import pytest

from overlay.cli.capture.ending import Ending, write_some


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_what_is_computed_alone_and_ends_the_next_wait(number):
    ending = Ending()

    with ending.by_signals():
        os.kill(os.getpid(), number)
        assert ending.is_asked
        with pytest.raises(KeyboardInterrupt), ending.waits():
            pytest.fail("it waits")


def test_wait_ends_when_the_time_of_the_end_is_over():
    ending = Ending()

    with ending.by_signals():
        ending.ask()
        ending.last(0.01)
        with pytest.raises(KeyboardInterrupt), ending.waits():
            time.sleep(60)


def test_capture_that_is_to_end_after_a_while_waits_no_longer_for_a_reader_that_has_stalled():
    reads, writes = os.pipe()
    ending, written = Ending(), []

    with ending.by_signals():
        ending.after(0.01)
        with pytest.raises(KeyboardInterrupt):
            write_until_it_ends(ending, writes, written)
        assert ending.is_asked

    os.close(reads)
    os.close(writes)


def test_handlers_are_those_of_before_behind_the_capture():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]

    with Ending().by_signals():
        pass

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


def write_until_it_ends(ending, descriptor, written):
    with ending.waits():
        while True:
            write_some(descriptor, memoryview(bytes(1 << 20)), written)


def test_what_is_written_is_known_though_a_signal_ends_the_wait():
    reads, writes = os.pipe()
    ending, written = Ending(), []

    with ending.by_signals():
        ending.last(0.01)
        with pytest.raises(KeyboardInterrupt):
            write_until_it_ends(ending, writes, written)

    assert len(os.read(reads, 1 << 20)) == sum(written) > 0
    os.close(reads)
    os.close(writes)
