from __future__ import annotations

import time

from overlay.host import clock


def test_now_counts_from_boot():
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)

    assert begun <= clock.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_wall_clock_counts_nanoseconds_since_1970():
    assert any(
        abs(clock.wall_ns() / 1e9 - time.time()) < 1 for _ in range(20)
    )  # others may run between the two
