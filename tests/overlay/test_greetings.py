from __future__ import annotations

from itertools import pairwise

import trio
import trio.testing

from overlay.greetings import Greetings
from overlay.session.constants import GREETINGS_PER_SECOND


def run(story):
    async def main():
        calls = []

        async def greet(number):
            calls.append((round(trio.current_time(), 6), number))

        greetings = Greetings(greet)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greetings.run)
            await story(greetings)
            nursery.cancel_scope.cancel()
        return calls

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_peers_are_greeted_in_their_order_and_one_at_a_time():
    async def story(greetings):
        greetings.add([3, 1])
        greetings.add([2, 3])
        await trio.sleep(10)

    calls = run(story)

    assert [number for _, number in calls] == [3, 1, 2]
    steps = {round(later - sooner, 6) for (sooner, _), (later, _) in pairwise(calls)}
    assert steps == {1 / GREETINGS_PER_SECOND}


def test_who_comes_later_is_greeted_at_once_if_nobody_waits():
    async def story(greetings):
        greetings.add([1])
        await trio.sleep(4)
        greetings.add([])
        await trio.sleep(1)
        greetings.add([1])
        await trio.sleep(1)

    assert [at for at, _ in run(story)] == [0.0, 5.0]
