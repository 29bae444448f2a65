"""A node to run."""

from __future__ import annotations

import pytest
import trio

from tests.overlay.agent.machine import ROME, TOKYO, Machine
from tests.simulated_time import waiting_for_threads


@pytest.fixture
def node(tmp_path):
    """Return a runner of ``async def story(machine)`` beside an agent that knows *peers*."""

    def run(story, *peers, before=lambda machine: None, clock=None):
        machine = Machine(tmp_path, *peers or (TOKYO, ROME))
        before(machine)

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.run)
                await story(machine)
                nursery.cancel_scope.cancel()

        with waiting_for_threads(clock):
            trio.run(main, strict_exception_groups=True, clock=clock)
        return machine

    return run
