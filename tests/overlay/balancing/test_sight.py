"""Whether a check may have failed because of this node."""

from __future__ import annotations

import pytest

from overlay.balancing.sight import BLIND, GAPS, SETTLES, Sight

PEER, OTHER = 3, 4


@pytest.fixture
def sight():
    """Of a forwarder that started long ago."""
    made = Sight()
    made.begun(0.0)
    made.met(PEER, 1.0)
    return made


def test_forwarder_that_answers_in_time_carries_packets(sight):
    for at in range(100, 110):
        sight.asked(at, at)
        sight.answered(at, at + 0.9 * BLIND)

    assert not sight.was_blind(100.0, 110.0, PEER)


def test_answer_that_is_late_or_not_there_yet_tells_that_packets_waited(sight):
    sight.asked(7, 100.0)
    assert not sight.was_blind(99.0, 100.0 + BLIND, PEER)
    assert sight.was_blind(99.0, 100.1 + BLIND, PEER)
    sight.answered(7, 103.0)

    assert sight.was_blind(102.9, 105.0, PEER)
    assert sight.was_blind(95.0, 100.1, PEER)
    assert not sight.was_blind(95.0, 100.0, PEER)
    assert not sight.was_blind(103.0, 108.0, PEER)


def test_question_that_is_asked_again_ends_the_one_before(sight):
    sight.asked(7, 100.0)
    sight.asked(7, 110.0)
    sight.answered(7, 110.1)

    assert sight.was_blind(105.0, 112.0, PEER)
    assert not sight.was_blind(110.0, 130.0, PEER)


def test_node_that_does_not_get_its_turn_sees_nothing(sight):
    sight.looked(100.0, 104.0)

    assert sight.was_blind(99.0, 104.0, None)
    assert not sight.was_blind(104.0, 109.0, None)


def test_what_began_before_another_forwarder_may_be_lost(sight):
    sight.asked(7, 100.0)
    sight.begun(101.0)
    sight.met(PEER, 101.2)

    assert sight.was_blind(100.9, 110.0, None)
    assert not sight.was_blind(101.0, 110.0, None)


def test_server_is_not_seen_before_there_is_a_session_unless_that_takes_long(sight):
    sight.begun(100.0)
    assert sight.was_blind(101.0, 104.0, PEER)
    assert not sight.was_blind(101.0, 104.0, None)
    sight.met(PEER, 105.0)
    sight.met(PEER, 106.0)  # its keys were renewed

    assert sight.was_blind(104.9, 108.0, PEER)
    assert not sight.was_blind(105.0, 108.0, PEER)
    assert sight.was_blind(105.0, 108.0, OTHER)
    assert not sight.was_blind(100.0 + SETTLES, 114.0, OTHER)


def test_only_so_many_times_are_remembered(sight):
    for at in range(1000):
        sight.looked(10.0 * at, 10.0 * at + 5.0)

    assert not sight.was_blind(0.0, 10.0 * (999 - GAPS), None)
    assert sight.was_blind(0.0, 10.0 * (1000 - GAPS) + 1.0, None)
