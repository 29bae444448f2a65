from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from overlay.session.deadlines import Deadlines

keys = st.integers(0, 5)
times = st.one_of(st.integers(0, 20).map(float), st.just(math.inf))


@given(st.lists(st.one_of(st.tuples(keys, times), st.integers(0, 20)), max_size=300))
def test_deadlines_agree_with_a_dictionary(steps):
    deadlines, slow = Deadlines(), {}
    for step in steps:
        if isinstance(step, int):
            due = deadlines.take_due(float(step), limit=3)
            expected = [key for key, when in slow.items() if when <= step]
            assert due == sorted(expected, key=lambda key: (slow[key], key))[:3]
            slow = {key: when for key, when in slow.items() if key not in due}
        else:
            deadlines.set(*step)
            slow[step[0]] = step[1]
        assert deadlines.next() == min(slow.values(), default=math.inf)


def test_at_the_end_of_time_what_has_a_deadline_is_due_and_nothing_else():
    deadlines = Deadlines()
    deadlines.set(1, 5.0)

    assert deadlines.take_due(math.inf, limit=3) == [1]
    assert deadlines.take_due(math.inf, limit=3) == []


def test_deadlines_that_are_put_off_again_and_again_take_no_room():
    deadlines = Deadlines()
    for when in range(10_000):
        deadlines.set(1, float(when))

    assert len(deadlines._heap) < 100


def test_of_many_keys_whose_deadlines_change_no_more_than_twice_as_many_entries_are_kept():
    deadlines = Deadlines()
    for when in range(20):
        for key in range(1000):
            deadlines.set(key, float(when))
            assert len(deadlines._heap) <= 2 * 1000 + 64


@given(st.integers(0, 10_000))
def test_thirty_keys_come_in_order_after_hundreds_of_changes(seed):
    chance, deadlines, slow = random.Random(seed), Deadlines(), {}
    for _ in range(600):  # more than the heap keeps: it is rebuilt several times
        key, when = chance.randrange(30), float(chance.randrange(1000))
        deadlines.set(key, when)
        slow[key] = when

    came = [deadlines.take_due(float(now), limit=30) for now in range(0, 1000, 7)]

    assert [key for due in came for key in due] == sorted(slow, key=lambda key: (slow[key], key))[
        : sum(map(len, came))
    ]
    assert deadlines.next() == min((when for when in slow.values() if when > 994), default=math.inf)
