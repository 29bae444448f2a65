from __future__ import annotations

import time

from overlay.host import clock


def test_now_counts_from_boot():
    assert abs(clock.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


def test_wall_clock_counts_nanoseconds_since_1970():
    assert abs(clock.wall_ns() / 1e9 - time.time()) < 1
