"""What wakes an agent when nothing happens."""

from __future__ import annotations

import math

import trio

from tests.peers.examples import peer

UNREACHED = peer("oslo", "10.244.4.0/24")  # it has no endpoint, so nobody calls it
SETTLED = 60.0  # seconds after a start, in which something may still be under way
WINDOW = 60.0  # seconds; what runs once a minute runs once


class Wakes(trio.abc.Instrument):
    """The times at which the loop was awake.  Simulated time only passes while it sleeps."""

    def __init__(self):
        self.times = set()

    def after_io_wait(self, timeout):
        self.times.add(trio.current_time())


def test_idle_agent_wakes_once_a_second_for_all_that_it_looks_at(node):
    wakes = Wakes()

    async def story(machine):
        await machine.ready()
        await trio.sleep_until(math.ceil(trio.current_time() + SETTLED))
        trio.lowlevel.add_instrument(wakes)
        await trio.sleep(WINDOW)

    node(story, UNREACHED)

    assert len(wakes.times) > 1
    assert [each for each in sorted(wakes.times) if each != math.floor(each)] == []
