"""What wakes an agent when nothing happens."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import trio

from tests.peers.examples import peer

UNREACHED = peer("oslo", "10.244.4.0/24")  # it has no endpoint, so nobody calls it
# Of the loop's clock compared with the real one: on a busy machine, a look takes seconds of a quick clock, after which
# the next one waits longer, while more happens in the time that a slow one takes.
SPEEDS = (20.0, 10.0, 5.0, 2.5)
WINDOW = 24.0  # seconds of that clock; what runs every ten of them runs twice


class Noting(trio.abc.Clock):
    """A clock that records until when the loop sleeps, and changes its speed."""

    def __init__(self):
        self.slept_until = []
        self._speed, self._since, self._then = SPEEDS[0], time.monotonic(), 0.0

    def start_clock(self):
        pass

    def current_time(self):
        return self._then + (time.monotonic() - self._since) * self._speed

    def deadline_to_sleep_time(self, deadline):
        self.slept_until.append(deadline)
        return (deadline - self.current_time()) / self._speed

    def go_at(self, speed):
        self._then, self._since, self._speed = self.current_time(), time.monotonic(), speed


@pytest.mark.slow
def test_idle_agent_wakes_once_a_second_for_all_that_it_looks_at(node):
    clock = Noting()

    async def story(machine):
        await machine.ready()
        for speed in itertools.cycle(SPEEDS):  # after a start, something may still be under way at first
            clock.go_at(speed)
            clock.slept_until.clear()
            await trio.sleep_until(math.floor(trio.current_time()) + WINDOW)
            if all(each == math.floor(each) for each in clock.slept_until):
                break
        assert len(set(clock.slept_until)) > 1

    node(story, UNREACHED, clock=clock)
