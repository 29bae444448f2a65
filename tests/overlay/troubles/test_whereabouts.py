from __future__ import annotations

import pytest

from overlay.troubles.whereabouts import MINUTE, PLACES, QUESTIONS, RESTLESS, Whereabouts

HERE, THERE = ("192.0.2.1", 51820), ("192.0.2.1", 51821)
NOW = 1000.0


@pytest.fixture
def places():
    return Whereabouts()


def test_peer_that_comes_from_two_places_in_turn_is_a_trouble_that_names_both(places):
    places.moved(HERE, THERE, 1, NOW)
    places.moved(THERE, HERE, 11_999, NOW + 1)

    assert str(places.trouble("tokyo", NOW + 2)) == (
        "tokyo is heard from 192.0.2.1:51821 and 192.0.2.1:51820 in turn, 12000 times in a minute: "
        "see whether two hosts use its key, or its network has two uplinks"
    )


def test_peer_that_roams_is_no_trouble(places):
    places.moved(None, HERE, RESTLESS, NOW)
    assert places.trouble("tokyo", NOW) is None

    places.moved(HERE, THERE, 1, NOW + MINUTE)
    assert places.trouble("tokyo", NOW + MINUTE) is None


def test_trouble_ends_a_minute_after_the_moves(places):
    places.moved(HERE, THERE, RESTLESS, NOW)

    assert places.trouble("tokyo", NOW + MINUTE - 0.1) is not None
    assert places.trouble("tokyo", NOW + MINUTE) is None


def test_moves_without_end_take_no_more_memory_than_one_a_second(places):
    for number in range(100_000):
        places.moved(HERE, THERE, 2, NOW + number / 1000)

    assert len(places._moves) <= MINUTE + 1
    assert "118000 times" in str(places.trouble("tokyo", NOW + 100))  # of the last 59 whole seconds


def test_the_host_is_asked_about_a_peer_some_times_at_once_and_then_once_a_second(places):
    assert [places.may_ask(NOW) for _ in range(QUESTIONS + 3)] == [*[True] * QUESTIONS, *[False] * 3]
    assert [places.may_ask(NOW + second) for second in (0.5, 1, 1.5, 2)] == [False, True, False, True]


def test_place_that_changed_nothing_is_settled_for_a_minute(places):
    places.settle(HERE, NOW)

    assert places.is_settled(HERE, NOW + MINUTE - 0.1)
    assert not places.is_settled(HERE, NOW + MINUTE)
    assert not places.is_settled(THERE, NOW)


def test_few_places_are_remembered_the_last_ones(places):
    for port in range(PLACES + 1):
        places.settle(("192.0.2.1", port), NOW)

    assert [places.is_settled(("192.0.2.1", port), NOW) for port in range(PLACES + 1)] == [
        False,
        *[True] * PLACES,
    ]


def test_place_is_called_for_the_first_time_once_until_the_peer_is_reached(places):
    assert [places.call(HERE), places.call(THERE), places.call(HERE)] == [True, True, False]

    places.reached()

    assert places.call(HERE)
