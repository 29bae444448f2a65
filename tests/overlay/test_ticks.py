import math

import trio
import trio.testing

from overlay.ticks import next_second


def test_all_who_wait_for_the_next_second_wake_together():
    woken = []

    async def look(after):
        await trio.sleep(after)
        for _ in range(3):
            await next_second()
            woken.append(trio.current_time())

    async def main():
        async with trio.open_nursery() as nursery:
            for after in (0.1, 0.5, 0.9):
                nursery.start_soon(look, after)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    assert len(woken) == 9
    assert len(set(woken)) == 3
    assert all(each == math.floor(each) for each in woken)
