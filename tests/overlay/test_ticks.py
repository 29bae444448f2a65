import math

import pytest
import trio
import trio.testing

from overlay.ticks import about, next_second


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


@pytest.mark.parametrize(
    ("now", "seconds", "ends"),
    [(0.3, 10.0, 10.0), (3.0, 10.0, 13.0), (3.9, 1.0, 4.0), (3.0, 1.0, 4.0), (3.9, 0.25, 4.15)],
)
def test_what_has_time_waits_for_a_whole_second_and_is_never_late(now, seconds, ends):
    async def main():
        await trio.sleep_until(now)
        await about(seconds)
        return trio.current_time()

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(ends)
