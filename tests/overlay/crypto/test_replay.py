from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.replay import REJECT_AFTER_MESSAGES, WINDOW, ReplayWindow
from tests.overlay.crypto.models import SlowReplayWindow

LAST = REJECT_AFTER_MESSAGES - 1

# Counters near each other, near the window's edge, and far away; in runs, as batches of datagrams have them.
near = st.integers(0, 50)
edge = st.integers(WINDOW - 3, WINDOW + 3)
anywhere = st.integers(0, 2**64 - 1)
steps = st.lists(
    st.tuples(
        st.sampled_from(["check", "mark", "accept", "run"]),
        st.one_of(near, edge, edge.map(lambda n: 2 * n), edge.map(lambda n: 3 * n), anywhere),
        st.integers(1, 70),
    ),
    max_size=40,
)


@given(steps, st.sampled_from([0, 2**40, LAST - 3 * WINDOW]))
def test_the_window_agrees_with_its_slow_twin(steps, base):
    window, slow = ReplayWindow(), SlowReplayWindow()
    for action, offset, count in steps:
        counter = min(base + offset, 2**64 - 1)
        if action == "run":
            assert window.accept_run(counter, count) == slow.accept_run(counter, count)
            continue
        assert window.check(counter) == slow.check(counter)
        if action == "accept":
            assert window.accept(counter) == slow.check(counter)
        if action != "check":
            window.mark(counter)
            slow.mark(counter)


def test_a_counter_is_accepted_once():
    window = ReplayWindow()

    assert [window.accept(counter) for counter in (0, 0, 1, 5, 3, 3, 5, 2)] == [
        True, False, True, True, True, False, False, True,
    ]  # fmt: skip


def test_every_short_story_of_near_counters_agrees_with_the_slow_twin():
    for story in itertools.product(range(5), repeat=5):
        window, slow = ReplayWindow(), SlowReplayWindow()
        for counter in story:
            is_new = slow.check(counter)
            slow.mark(counter)
            assert window.accept(counter) == is_new, story


def test_what_is_missing_stays_missing_when_the_base_follows_the_newest_again():
    window = ReplayWindow()
    window.mark(3 * WINDOW)  # the base moves for the first time
    window.mark(4 * WINDOW)
    window.mark(4 * WINDOW + 2)  # and again, over the gap before it

    assert [window.accept(counter) for counter in (3 * WINDOW + 2, 4 * WINDOW - 1, 4 * WINDOW + 1)] == [
        True
    ] * 3
    assert [window.accept(counter) for counter in (3 * WINDOW + 1, 4 * WINDOW, 4 * WINDOW - 1)] == [False] * 3


def test_check_records_nothing():
    window = ReplayWindow()
    window.check(2**63)

    assert window.accept(0)


def test_the_window_reaches_back_8128_counters():
    window = ReplayWindow()
    window.mark(WINDOW + 1)

    assert window.check(1)
    assert not window.check(0)


def test_a_jump_beyond_the_window_forgets_what_was_missing():
    window = ReplayWindow()
    window.mark(10)
    window.mark(2**62)

    assert not window.check(5)
    assert window.check(2**62 - WINDOW)


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, 2**64 - 1])
def test_counters_from_reject_after_messages_on_are_refused(counter):
    window = ReplayWindow()
    window.mark(counter)

    assert not window.check(counter)
    assert not window.accept(counter)
    assert window.accept_run(0, 1)


def test_the_last_counter_before_reject_after_messages_is_accepted():
    window = ReplayWindow()

    assert window.accept(LAST)
    assert not window.accept(LAST + 1)


def test_a_run_that_reaches_reject_after_messages_is_refused_whole():
    window = ReplayWindow()

    assert not window.accept_run(LAST, 2)
    assert window.accept_run(LAST, 1)


def test_a_refused_run_records_nothing():
    window = ReplayWindow()
    window.accept(4)

    assert not window.accept_run(3, 10)
    assert window.accept_run(5, 10)
    assert window.accept(3)


def test_a_run_longer_than_the_window_is_recorded():
    window = ReplayWindow()

    assert window.accept_run(0, 3 * WINDOW)
    assert not window.check(3 * WINDOW - 1)
    assert not window.check(2 * WINDOW)
    assert window.check(3 * WINDOW)
