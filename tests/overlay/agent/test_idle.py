"""What wakes an agent when nothing happens."""

from __future__ import annotations

import math
import time

import pytest
import trio

from tests.overlay.agent.machine import PATIENCE
from tests.peers.examples import peer

UNREACHED = peer("oslo", "10.244.4.0/24")  # it has no endpoint, so nobody calls it
SPEED = 20.0  # of the loop's clock compared with the real one
WINDOW = 24.0  # seconds of that clock; what runs every ten of them runs twice


class Noting(trio.abc.Clock):
    """A clock that records until when the loop sleeps."""

    def __init__(self):
        self.slept_until = []

    def start_clock(self):
        pass

    def current_time(self):
        return time.monotonic() * SPEED

    def deadline_to_sleep_time(self, deadline):
        self.slept_until.append(deadline)
        return (deadline - self.current_time()) / SPEED


@pytest.mark.slow
def test_idle_agent_wakes_once_a_second_for_all_that_it_looks_at(node):
    clock = Noting()

    async def story(machine):
        await machine.ready()
        with trio.fail_after(PATIENCE * SPEED):
            while True:  # after a start, something may still be under way in the first
                clock.slept_until.clear()
                await trio.sleep_until(math.floor(trio.current_time()) + WINDOW)
                if all(each == math.floor(each) for each in clock.slept_until):
                    break
        assert len(set(clock.slept_until)) > 1

    node(story, UNREACHED, clock=clock)
