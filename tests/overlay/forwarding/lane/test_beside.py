from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.forwarding.lane.beside import are_of_one_host, is_beside, place_of_session

HERE, ELSEWHERE = ("192.0.2.1", 51820), ("192.0.2.77", 40_001)


def lane(endpoint=HERE, *, was_beside=False):
    return SimpleNamespace(peer=SimpleNamespace(endpoint=endpoint), was_beside=was_beside)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("fe80::1", 1, 0, 3), ("fe80::1", 2, 5, 3), True),
        (("fe80::1", 1, 0, 3), ("fe80::1", 1, 0, 4), False),
        (None, ("192.0.2.1", 2), False),
    ],
)
def test_hosts_are_told_apart_by_address_and_link(one, other, expected):
    assert are_of_one_host(one, other) == expected


def test_a_lane_at_the_host_of_its_session_moves_nobody():
    assert place_of_session(lane(), (HERE[0], 40_001)) == HERE


def test_a_lane_that_was_beside_its_session_takes_the_peer_along():
    assert place_of_session(lane(was_beside=True), ELSEWHERE) == (ELSEWHERE[0], HERE[1])


def test_a_lane_that_never_was_beside_its_session_tells_nothing():
    assert place_of_session(lane(), ELSEWHERE) is None


def test_a_lane_of_a_peer_that_is_nowhere_tells_nothing():
    assert place_of_session(lane(None, was_beside=True), ELSEWHERE) is None


def test_a_lane_takes_the_peer_to_another_family():
    moved = place_of_session(lane(was_beside=True), ("2001:db8::1", 40_001, 0, 0))

    assert moved == ("2001:db8::1", HERE[1], 0, 0)


def test_a_probe_from_beside_the_session_is_remembered():
    keypair = lane()

    assert not is_beside(keypair, ELSEWHERE)
    assert not keypair.was_beside
    assert is_beside(keypair, (HERE[0], 40_001))
    assert keypair.was_beside
