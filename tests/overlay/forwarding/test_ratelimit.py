from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.ratelimit import Bucket, TokenBuckets


def test_a_burst_passes_at_once_and_then_the_rate():
    buckets = TokenBuckets(rate=2.0, burst=3.0)

    passed = [buckets.allow(b"k", at) for at in (0, 0, 0, 0, 0.4, 0.5, 0.6, 1.0, 100, 100, 100, 100)]

    assert passed == [True, True, True, False, False, True, False, True, True, True, True, False]


def test_each_key_has_its_own():
    buckets = TokenBuckets(rate=1.0, burst=1.0)

    assert [buckets.allow(key, 0) for key in (b"a", b"a", b"b", b"b")] == [True, False, True, False]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.floats(0, 0.5)), max_size=100))
def test_no_key_gets_more_than_burst_and_rate(steps):
    buckets, now, passed = TokenBuckets(rate=5.0, burst=4.0), 0.0, {b"a": 0, b"b": 0}
    for key, pause in steps:
        now += pause
        passed[key] += buckets.allow(key, now)

    assert all(count <= 4 + 5 * now for count in passed.values())


def test_in_a_flood_of_keys_the_known_ones_go_on():
    buckets = TokenBuckets(rate=10.0, burst=20.0, keys=8)
    for number in range(100):
        buckets.allow(bytes([number]), 0.0)

    assert buckets.allow(bytes([3]), 0.1)
    assert not buckets.allow(b"new", 0.1)
    assert len(buckets._state) == 8


def test_keys_that_were_idle_make_room():
    buckets = TokenBuckets(rate=10.0, burst=20.0, keys=8)
    for number in range(8):
        buckets.allow(bytes([number]), 0.0)

    assert not buckets.allow(b"new", 1.9)
    assert buckets.allow(b"new", 3.0)


def test_a_flood_of_keys_is_refused_cheaply():
    buckets = TokenBuckets(rate=10.0, burst=20.0)
    for number in range(4096):
        buckets.allow(number.to_bytes(4, "big"), 0.0)
    began = time.process_time()

    for number in range(4096, 14_096):
        assert not buckets.allow(number.to_bytes(4, "big"), 0.5)

    assert time.process_time() - began < 1.0  # examining every key each time would take four


def test_one_bucket_gives_a_burst_and_then_its_rate():
    bucket = Bucket(rate=10, burst=20)

    assert [bucket.take(15, 0), bucket.take(6, 0), bucket.take(5, 0)] == [True, False, True]
    assert [bucket.take(6, 0.5), bucket.take(5, 0.5)] == [False, True]


def test_more_than_a_burst_is_taken_from_a_full_bucket_and_owed():
    bucket = Bucket(rate=10, burst=20)

    assert bucket.take(100, 0)
    assert not bucket.take(1, 8)  # a hundred at ten a second, less the burst
    assert bucket.take(1, 8.2)
    assert not bucket.take(100, 10.1)
    assert bucket.take(100, 10.3)


def test_what_is_taken_is_the_rate_whatever_is_asked_for_at_once():
    bucket = Bucket(rate=10, burst=20)

    taken = sum(50 for tenth in range(1000) if bucket.take(50, tenth / 10))

    assert taken <= 100 * 10 + 50


def test_what_is_there_of_one_bucket_is_told_and_not_taken():
    bucket = Bucket(10, 5)

    assert bucket.available(0.0) == 5
    assert bucket.take(2, 0.0)
    assert bucket.available(0.0) == 3
    assert bucket.available(0.15) == 4
    assert bucket.available(100.0) == 5


def test_what_is_owed_to_one_bucket_is_below_zero():
    bucket = Bucket(10, 5)
    bucket.take(9, 0.0)

    assert bucket.available(0.05) == -4


def test_idle_keys_are_forgotten_once_their_bucket_is_full_again_and_no_sooner():
    buckets = TokenBuckets(rate=10.0, burst=20.0, keys=3)
    for key, at in ((b"a", 100.0), (b"b", 101.0), (b"c", 101.5)):
        buckets.allow(key, at)

    assert not buckets.allow(b"new", 101.9)
    assert buckets.allow(b"new", 102.9)  # half the time to fill a bucket after the last sweep
    assert set(buckets._state) == {b"b", b"c", b"new"}


def test_between_two_looks_at_all_keys_lies_half_the_time_that_fills_a_bucket():
    buckets = TokenBuckets(rate=10.0, burst=20.0, keys=1)
    buckets.allow(b"a", 0.0)

    assert not buckets.allow(b"new", 1.1)  # a sweep
    assert not buckets.allow(b"new", 2.05)  # the key is idle, but is not examined yet
    assert buckets.allow(b"new", 2.15)
