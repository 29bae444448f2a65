from __future__ import annotations

import trio
from trio.testing import MockClock

from overlay.doors.fresh import LEAST_AGE, Fresh


def test_answer_is_made_once_for_all_who_ask_at_the_same_time_and_anew_later():
    made = []

    async def make():
        await trio.sleep(4)
        made.append(len(made))
        return None if len(made) == 1 else len(made)

    async def main():
        fresh, told = Fresh(make), []

        async def ask():
            told.append(await fresh.take())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert told == [None] * 10
        await trio.sleep(3.9)  # it may take half of the time
        assert await fresh.take() is None
        await trio.sleep(0.2)
        assert await fresh.take() == 2

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(made) == 2


def test_answer_that_takes_no_time_is_still_told_for_a_moment():
    made = []

    async def make():
        made.append(1)
        return len(made)

    async def main():
        fresh = Fresh(make)
        assert [await fresh.take(), await fresh.take()] == [1, 1]
        await trio.sleep(LEAST_AGE)
        assert await fresh.take() == 2

    trio.run(main, clock=MockClock(autojump_threshold=0))
