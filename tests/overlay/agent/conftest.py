"""A node to run."""

from __future__ import annotations

import pytest
import trio

from overlay.host import clock
from tests.overlay.agent.machine import ROME, TOKYO, Machine
from tests.simulated_time import waiting_for_threads


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Return a runner of ``async def story(machine)`` beside an agent that knows *peers*.

    Time is simulated: what is due comes once nothing else can be done, however slow the machine is.
    """

    def run(story, *peers, before=lambda machine: None):
        machine = Machine(tmp_path, *peers or (TOKYO, ROME))
        before(machine)

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.run)
                await story(machine)
                nursery.cancel_scope.cancel()

        simulated = trio.testing.MockClock(autojump_threshold=0)
        monkeypatch.setattr(clock, "now", simulated.current_time)
        with waiting_for_threads(simulated):
            trio.run(main, strict_exception_groups=True, clock=simulated)
        return machine

    return run
