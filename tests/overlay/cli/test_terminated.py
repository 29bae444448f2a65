from __future__ import annotations

import os
import signal

import pytest

from overlay.cli.terminated import ENDING, cleaned_up


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("interrupt", [signal.SIG_IGN, signal.default_int_handler])
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_cleans_up_and_then_ends_the_process(interrupt, number):
    """Also where SIGINT is ignored, as in the background of a script."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(number, signal.SIG_DFL)
            with cleaned_up():
                try:
                    signal.raise_signal(number)
                finally:
                    os.write(writes, b"clean")
        finally:
            os._exit(99)
    os.close(writes)

    with open(reads, "rb") as said:
        assert said.read() == b"clean"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with cleaned_up():
        signal.raise_signal(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
