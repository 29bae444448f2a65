"""Keepalives, and absent peers that have one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from overlay.link import messages as link
from overlay.session.outputs import GiveUp
from tests.two_nodes.stories.talking import RTT, connected

# Keepalives


def test_what_was_received_is_answered_with_a_keepalive_after_10_seconds(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(60)
    start = world.clock.now
    a.send(b)

    world.run(60)

    assert world.sent("keepalive", since=start) == [pytest.approx(start + RTT / 2 + 10)]


def test_who_has_answered_owes_no_keepalive(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(60)
    start = world.clock.now
    a.send(b)
    world.run(1)
    b.send(a)

    world.run(60)

    assert world.sent("keepalive", "b", since=start) == []
    assert world.sent("keepalive", "a", since=start) == [pytest.approx(start + 1 + RTT / 2 + 10)]


def test_an_idle_session_sends_nothing(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(30)
    before = len(world.network.sent)

    world.run(3600)

    assert len(world.network.sent) == before


def test_a_persistent_keepalive_begins_with_a_handshake_and_goes_on(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, keepalive=25.0)
    b.know(a)
    start = world.clock.now

    world.run(101)

    assert world.sent("initiation") == [start]
    assert world.sent("keepalive", "a") == [pytest.approx(start + RTT + 25 * n, abs=0.05) for n in range(5)]


def test_a_keepalive_that_is_made_shorter_counts_from_now_on(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, keepalive=3600.0)
    b.know(a)
    world.run(10)
    a.tell(link.SetPeer(1, 1.0))

    world.run(10)

    assert len(world.sent("keepalive", "a")) >= 10


def test_a_keepalive_that_is_taken_away_ends(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, keepalive=1.0)
    b.know(a)
    world.run(10)
    a.tell(link.SetPeer(1, 0.0))
    before = len(world.network.sent)

    world.run(60)

    assert len(world.network.sent) == before


# An absent peer with a keepalive


def dead(world, keepalive=25.0):
    """Return a node with a peer that was given up, and the time of that."""
    a, b = world.pair(keepalive=keepalive)
    world.network.lose = lambda flight: True
    while not a.sessions.status(1).is_given_up:
        world.run(1)
    return a, b, world.clock.now


@pytest.mark.slow
@pytest.mark.parametrize("keepalive", [1.0, 25.0, 3600.0])
def test_a_dead_peer_with_a_keepalive_is_called_ever_more_seldom(world, keepalive):
    a, _, start = dead(world, keepalive)
    world.run(2 * 3600)

    calls = world.sent("initiation", by="a", since=start)
    gaps = [later - sooner for sooner, later in pairwise(calls)]

    assert len(calls) <= 7200 / 60 + 25
    assert sorted(gaps[:3]) == gaps[:3]
    assert gaps[:2] == [pytest.approx(20, abs=1), pytest.approx(40, abs=1)]
    assert max(gaps[3:10]) <= 62
    assert a.sessions.status(1).is_given_up
    assert len(a.logged(GiveUp)) == 1


def test_traffic_for_a_dead_peer_breaks_the_pause(world):
    a, b, _ = dead(world)
    world.run(600)
    start = world.clock.now

    a.send(b)
    world.run(30)

    assert len(world.sent("initiation", by="a", since=start)) >= 5
    assert not a.sessions.status(1).is_given_up


def test_a_dead_peer_that_calls_is_reached_and_not_left_alone_again(world):
    a, b, _ = dead(world)
    world.run(600)
    world.network.lose = lambda flight: False
    start = world.clock.now
    b.want(1)
    world.run(1)
    assert a.sessions.status(1).completed_at == pytest.approx(start, abs=0.1)

    world.network.lose = lambda flight: True
    while not a.sessions.status(1).is_given_up:
        a.send(b)
        world.run(1)
    start = world.clock.now
    world.run(60)

    assert len(world.sent("initiation", by="a", since=start)) >= 2


def test_a_dead_peer_that_comes_back_is_found_by_itself_within_the_pause(world):
    a, _, _ = dead(world)
    world.run(3600)
    world.network.lose = lambda flight: False

    world.run(62)

    assert a.sessions.status(1).completed_at is not None


def test_a_peer_without_keepalive_that_is_dead_is_not_called(world):
    a, b = world.pair()
    world.network.lose = lambda flight: True
    a.send(b)
    world.run(120)
    start = world.clock.now
    world.run(3600)

    assert world.sent("initiation", by="a", since=start) == []
