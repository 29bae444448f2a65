import math

from overlay.greetings import Greetings
from overlay.session.constants import GREETINGS_PER_SECOND

STEP = 1 / GREETINGS_PER_SECOND


def calls(greetings, now, until):
    """Return who is called when, each at its deadline, until then."""
    called = []
    while greetings.next_deadline() <= until:
        now = max(now, greetings.next_deadline())
        called.append((now, greetings.take(now)))
    return called


def test_peers_are_greeted_in_their_order_and_one_at_a_time():
    greetings = Greetings()
    greetings.add([3, 1])
    greetings.add([2, 3])

    assert calls(greetings, 100.0, 200.0) == [(100.0, 3), (100.0 + STEP, 1), (100.0 + STEP + STEP, 2)]
    assert greetings.next_deadline() == math.inf


def test_who_comes_later_is_greeted_at_once_if_nobody_waits():
    greetings = Greetings()
    greetings.add([1])
    assert greetings.take(100.0) == 1
    greetings.add([])
    assert greetings.next_deadline() == math.inf

    greetings.add([1])

    assert greetings.take(105.0) == 1


def test_nobody_is_greeted_before_their_turn():
    greetings = Greetings()
    greetings.add([1, 2])
    assert greetings.take(100.0) == 1

    assert greetings.take(100.0 + STEP / 2) is None
    assert greetings.take(100.0 + STEP) == 2


def test_a_pause_is_not_made_up_for():
    greetings = Greetings()
    greetings.add(range(100))
    greetings.take(100.0)

    assert len([number for _ in range(10) if (number := greetings.take(200.0)) is not None]) == 1
