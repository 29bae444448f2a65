"""The end of a capture: signals interrupt what waits, and nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
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


def test_end_whose_signal_came_just_before_a_wait_began_is_asked_for_again():
    ending = Ending()

    with ending.by_signals():
        ending.after(0.01)
        while not ending.is_asked:
            pass
        ending.is_asked = False  # as the wait saw it that began in that moment
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


@contextlib.contextmanager
def interrupted_once_full(pipe):
    """Send this process SIGINT once *pipe* takes no more, so that the thread that writes to it waits."""

    deadline = time.monotonic() + 60

    def interrupt():
        while select.select([], [pipe], [], 0)[1] and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_what_is_written_is_known_though_a_signal_ends_the_wait():
    reads, writes = os.pipe()
    ending, written = Ending(), []

    with ending.by_signals(), interrupted_once_full(writes), pytest.raises(KeyboardInterrupt):
        write_until_it_ends(ending, writes, written)

    assert len(os.read(reads, 1 << 20)) == sum(written) > 0
    os.close(reads)
    os.close(writes)
