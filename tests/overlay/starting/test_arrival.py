from __future__ import annotations

import os
import signal

import pytest
import trio
from trio.testing import MockClock

from overlay.errors import ConfigError, NotHereError
from overlay.starting.arrival import LONGEST_PAUSE, wait_until_here
from overlay.starting.waiting import WaitingAgent

NODE = object()


class Silent(WaitingAgent):
    """Nobody asks."""

    def __init__(self):
        pass

    async def serve(self):
        await trio.sleep_forever()


def settle_after(*errors):
    """Return a function that raises each of *errors*, then returns NODE, and a list of when it was called."""
    left, called = list(errors), []

    def settle():
        called.append(trio.current_time())
        if left:
            raise left.pop(0)
        return NODE

    return settle, called


def run(settle):
    return trio.run(wait_until_here, settle, Silent(), clock=MockClock(autojump_threshold=0))


def test_a_node_that_knows_itself_does_not_wait():
    settle, called = settle_after()

    assert run(settle) is NODE
    assert len(called) == 1


def test_a_node_waits_for_an_address_and_says_so_once(caplog):
    settle, called = settle_after(*[NotHereError("none of them")] * 20)

    assert run(settle) is NODE
    assert caplog.text.count("waiting for an address of this host: none of them") == 1
    assert called[-1] - called[-2] == LONGEST_PAUSE


def test_what_else_is_wrong_comes_out():
    settle, _ = settle_after(NotHereError("none of them"), ConfigError("line 7"))

    with pytest.raises(ConfigError, match="line 7"):
        run(settle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(number):
    def settle():
        os.kill(os.getpid(), number)
        raise NotHereError("none of them")

    assert trio.run(wait_until_here, settle, Silent()) is None
