from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.bulk.asking import FIRST_PAUSE, HELLOS, LONGEST_PAUSE, LOYALTY, Asking

SESSION = 120.0  # seconds
DAY = 86_400.0


def hellos(asking, days, *, began=1000.0):
    """Return when hellos were sent in that many *days* of sessions."""
    said, now = [], began
    while now < began + days * DAY:
        said += [now] * asking.begin(now)
        now += SESSION
    return said


def test_a_peer_that_never_answers_is_asked_ever_more_rarely_and_once_a_day_in_the_end():
    said = hellos(Asking(), 30)

    pauses = [later - earlier for earlier, later in zip(said[HELLOS - 1 :], said[HELLOS:], strict=False)]
    assert said[:HELLOS] == [1000.0] * HELLOS
    assert pauses == sorted(pauses)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert LONGEST_PAUSE <= pauses[-1] < LONGEST_PAUSE + SESSION
    assert len(said) < 30 + 15


def test_a_peer_that_answers_is_asked_under_every_keypair():
    asking = Asking()

    for number in range(100):
        assert asking.begin(number * SESSION) == HELLOS
        asking.answered()


def test_a_peer_that_answered_once_is_not_given_up_at_the_first_silence():
    asking = Asking()
    asking.begin(0.0)
    asking.answered()

    assert [asking.begin(number * 0.1) for number in range(LOYALTY + 2)] == [HELLOS] * LOYALTY + [0, 0]


@pytest.mark.parametrize("days", [0, 1, 20])
def test_where_it_may_be_another_it_is_asked_soon_and_not_at_once(days):
    asking = Asking()
    last = hellos(asking, days + 0.01)[-1]

    asking.again()
    assert asking.begin(last + FIRST_PAUSE - 1) == 0
    assert asking.begin(last + FIRST_PAUSE) == 1
    for _ in range(1000):  # as one that moves with every message
        asking.again()
        assert asking.begin(last + FIRST_PAUSE + 1) == 0


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "again", "answered"]), st.floats(0, 10_000)), max_size=60)
)
def test_two_hellos_that_nobody_answers_are_never_closer_than_the_first_pause(steps):
    asking, now, last, answered = Asking(), 0.0, None, False
    unanswered = 0
    for step, seconds in steps:
        now += seconds
        if step == "begin":
            said = asking.begin(now)
            if said:
                assert last is None or unanswered < (LOYALTY if answered else 1) or now - last >= FIRST_PAUSE
                last, unanswered = now, unanswered + 1
        elif step == "again":
            asking.again()
        else:
            asking.answered()
            answered, unanswered = True, 0
