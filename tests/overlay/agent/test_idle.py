"""What wakes an agent when nothing happens."""

from __future__ import annotations

import math
import time

import pytest
import trio

from tests.peers.examples import peer

UNREACHED = peer("oslo", "10.244.4.0/24")  # it has no endpoint, so nobody calls it
SPEED = 20.0  # of the loop's clock compared with the real one, at first
LEAST_SPEED = 2.0
WINDOW = 24.0  # seconds of that clock; what runs every ten of them runs twice


class Noting(trio.abc.Clock):
    """A clock that records until when the loop sleeps, and may slow down."""

    def __init__(self):
        self.slept_until = []
        self._speed, self._since, self._then = SPEED, time.monotonic(), 0.0

    def start_clock(self):
        pass

    def current_time(self):
        return self._then + (time.monotonic() - self._since) * self._speed

    def deadline_to_sleep_time(self, deadline):
        self.slept_until.append(deadline)
        return (deadline - self.current_time()) / self._speed

    def slow_down(self):
        self._then, self._since = self.current_time(), time.monotonic()
        self._speed = max(self._speed / 2, LEAST_SPEED)


@pytest.mark.slow
def test_idle_agent_wakes_once_a_second_for_all_that_it_looks_at(node):
    clock = Noting()

    async def story(machine):
        await machine.ready()
        while True:  # after a start, something may still be under way in the first
            clock.slept_until.clear()
            await trio.sleep_until(math.floor(trio.current_time()) + WINDOW)
            if all(each == math.floor(each) for each in clock.slept_until):
                break
            clock.slow_down()  # on a busy machine, a look takes seconds of a quick clock, and the next one waits longer
        assert len(set(clock.slept_until)) > 1

    node(story, UNREACHED, clock=clock)
