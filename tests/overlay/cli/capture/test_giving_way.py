"""A capture gives way to the packets: through the kernel's scheduler, and through pauses of its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from overlay.cli.capture.giving_way import GivingWay

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a user may not undo it: run as root")


def in_a_thread(call):
    """Return the result of *call* in a thread of its own: the kernel schedules each thread separately."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@needs_root
def test_capture_runs_where_a_processor_is_idle_until_it_ends():
    def policies():
        before = os.sched_getscheduler(0)
        giving_way = GivingWay()
        during = os.sched_getscheduler(0)
        giving_way.close()
        return before, during, os.sched_getscheduler(0)

    assert in_a_thread(policies) == (os.SCHED_OTHER, os.SCHED_IDLE, os.SCHED_OTHER)


def test_capture_with_nothing_to_read_does_not_rest():
    def rest():
        giving_way = GivingWay()
        rested = giving_way.rest()
        giving_way.close()
        giving_way.close()
        return rested

    assert in_a_thread(rest) == 0
