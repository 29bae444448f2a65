from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.session.tai64n import TAI64N, Tai64nClock, seconds_between

GRAIN = 2**24


def test_a_stamp_is_a_tai64n_label():
    # 2001-09-09 01:46:40 UTC; the nanoseconds are rounded down to the granularity
    wall = 10**9 * 10**9
    stamp = Tai64nClock(lambda: wall).stamp()

    seconds, nanoseconds = int.from_bytes(stamp[:8], "big"), int.from_bytes(stamp[8:], "big")
    unix_ns = (seconds - 0x400000000000000A) * 10**9 + nanoseconds

    assert len(stamp) == 12
    assert nanoseconds < 10**9
    assert unix_ns % GRAIN == 0
    assert 0 <= wall - unix_ns < GRAIN


@given(st.lists(st.integers(-(10**18), 2 * 10**18), min_size=2, max_size=50))
def test_stamps_grow_whatever_the_wall_clock_does(walls):
    clock = Tai64nClock(iter(walls).__next__)
    stamps = [clock.stamp() for _ in walls]

    assert stamps == sorted(set(stamps))


def test_stamps_follow_the_clock_when_it_goes_on():
    walls = iter([5 * 10**9, 0, 7 * 10**9])
    clock = Tai64nClock(walls.__next__)
    stamps = [clock.stamp() for _ in range(3)]

    assert int.from_bytes(stamps[2][:8], "big") - int.from_bytes(stamps[0][:8], "big") in {1, 2}


@pytest.mark.parametrize(("wall", "expected"), [(0, False), (1_577_836_799, False), (1_577_836_800, True)])
def test_a_clock_before_2020_is_not_plausible(wall, expected):
    assert Tai64nClock(lambda: wall * 10**9).is_plausible() is expected


def test_the_first_stamp_is_the_wall_clock_s_grain_and_the_next_of_it_a_nanosecond_later():
    clock = Tai64nClock(lambda: 0)

    stamps = [clock.stamp() for _ in range(3)]

    assert stamps == [(2**62 + 10).to_bytes(8, "big") + number.to_bytes(4, "big") for number in range(3)]


def test_a_clock_before_1970_counts_as_1970():
    assert Tai64nClock(lambda: -(10**18)).stamp() == Tai64nClock(lambda: 0).stamp()


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_seconds_between_stamps_are_those_between_their_moments(first, second):
    stamps = [TAI64N.pack(2**62 + 10 + each // 10**9, each % 10**9) for each in (first, second)]

    assert seconds_between(*stamps) == pytest.approx((second - first) / 1e9)
