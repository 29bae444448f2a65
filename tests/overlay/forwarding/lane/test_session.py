from __future__ import annotations

from dataclasses import dataclass

import pytest

from overlay.forwarding.lane.session import SessionLanes


@dataclass
class Keypair:
    lane: int


def lanes(count, *, closed=()):
    """Return the lanes of a session, all of which are open except those that are *closed*."""
    made = SessionLanes(Keypair)
    made.grow(count, 0.0)
    for number, trial in enumerate(made.trials, 1):
        trial.is_open = number not in closed
    return made


def test_lanes_are_numbered_from_one_on():
    assert [each.lane for each in lanes(4).keypairs] == [1, 2, 3]


def test_each_lane_of_the_node_sends_by_that_of_its_number():
    assert [each and each.lane for each in lanes(4).sending(4)] == [None, 1, 2, 3]


def test_more_lanes_than_the_session_has_share_its_lanes():
    assert [each and each.lane for each in lanes(2).sending(8)] == [None, 1] * 4


def test_a_lane_that_is_not_open_goes_by_the_session():
    assert [each and each.lane for each in lanes(4, closed={1, 3}).sending(4)] == [None, None, 2, None]


def test_lanes_begin_as_those_before_them_ended():
    made = SessionLanes(Keypair)
    made.grow(4, 0.0, lanes(2).are_open())

    assert made.are_open() == [True, True, False, False]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_lanes_leave_the_first(count):
    made = lanes(4)

    gone = made.shrink(count)

    assert [each.lane for each in gone] == list(range(count, 4))
    assert made.count == count


def test_packets_flow_if_there_were_more_since_the_last_look():
    made = lanes(2)

    assert [made.is_flowing(packets) for packets in (0, 0, 3, 3)] == [True, False, True, False]
