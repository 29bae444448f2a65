"""Tasks that sleep until a deadline, in simulated time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from overlay.alarm import Alarm


def slept(due, *calls):
    """Return how many seconds a task sleeps until *due* if *calls* are made after one second."""

    async def main():
        alarm, began = Alarm(), trio.current_time()
        alarm.wake()  # forgotten
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alarm.wait, 100.0 + due, 100.0)
            await trio.sleep(1.0)
            for call in calls:
                call(alarm)
        return trio.current_time() - began

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.0))


@pytest.mark.parametrize(
    ("call", "seconds"),
    [
        (Alarm.wake, 1.0),
        (lambda alarm: alarm.advance(109.0), 1.0),
        (lambda alarm: alarm.advance(110.0), 10.0),
    ],
)
def test_task_sleeps_until_the_first_deadline(call, seconds):
    assert slept(10.0, call) == pytest.approx(seconds)


def test_deadline_that_has_passed_is_not_waited_for():
    assert slept(-5.0) == pytest.approx(1.0)
