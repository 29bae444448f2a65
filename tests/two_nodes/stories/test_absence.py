"""A peer that is absent, or restarts."""

from __future__ import annotations

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.engine import LookUp
from overlay.link import messages as link
from overlay.session.outputs import Completed, GiveUp
from overlay.status import state_of
from tests.hypothesis_profiles import seeds
from tests.overlay.session.pair import seeded
from tests.sim import World
from tests.two_nodes.stories.talking import connected, keep_talking

# A peer that is absent


def test_a_lost_initiation_is_repeated_after_5_seconds(world, pair):
    a, b = pair
    start = world.clock.now
    world.network.lose = lambda flight: world.clock.now == start
    sent = a.send(b)

    world.run(6)

    assert world.sent("initiation") == [start, pytest.approx(start + 5.17, abs=0.17)]
    assert b.received == sent


def test_a_silent_peer_is_given_up_after_90_seconds_and_its_senders_are_told(world, pair):
    a, b = pair
    world.network.lose = lambda flight: True
    (packet,) = a.send(b)
    world.run(100)

    (error,) = a.received

    assert error[20:22] == bytes([3, 1])
    assert error[28:] == packet
    assert len(a.logged(GiveUp)) == 1
    assert len(world.sent("initiation")) == 19
    assert len(a.logged(LookUp)) == 18
    assert a.drops["given_up"] == 1


def test_a_peer_given_up_works_again_when_it_is_back(world, pair):
    a, b = pair
    world.network.lose = lambda flight: True
    a.send(b)
    world.run(100)
    world.network.lose = lambda flight: False
    sent = a.send(b)
    world.run(6)
    a.received.clear()
    sent += a.send(b)

    world.run(1)

    assert b.received == sent
    assert a.received == []  # no more errors


def test_a_peer_given_up_that_calls_is_no_longer_unreachable(world, pair):
    a, b = pair
    world.network.lose = lambda flight: True
    a.send(b)
    world.run(100)
    world.network.lose = lambda flight: False
    b.send(a)
    world.run(200)  # the session came and went
    a.received.clear()
    sent = a.send(b)

    world.run(1)

    assert b.received[-1:] == sent
    assert a.received == []


def test_a_peer_without_an_endpoint_is_unreachable_until_it_calls(world):
    a, b = world.node("a"), world.node("b")
    a.know(b)
    b.know(a, endpoint=None)
    b.send(a)
    world.run(1)
    assert b.received[0][20:22] == bytes([3, 1])

    connected_first = a.send(b)
    world.run(1)
    answer = b.send(a)
    world.run(1)

    assert b.received[1:] == connected_first
    assert a.received == answer


def test_a_preshared_key_mismatch_never_comes_up(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, psk=b"p" * 32)
    b.know(a, psk=b"q" * 32)
    a.send(b)
    b.send(a)

    world.run(60)

    assert a.received == b.received == []
    assert world.sent("data") + world.sent("keepalive") == []
    assert a.refused["response_seal"] > 0
    assert a.logged(Completed) == b.logged(Completed) == []
    assert [state_of(node.sessions.status(1), world.clock.now, 180) for node in (a, b)] == ["unconfirmed"] * 2


def test_a_stranger_gets_no_answer(world, pair):
    _, b = pair
    stranger = world.node("stranger")
    stranger.know(b)
    stranger.send(b)

    world.run(10)

    assert b.refused["initiation_unknown_peer"] == 2
    assert world.sent("response") == []


# Restarts


def test_after_a_restart_that_shakes_hands_traffic_goes_on_within_2_seconds(world, pair):
    a, b = pair
    connected(world, a, b)
    b.restart()
    b.want(1)
    world.run(2)
    to_b, to_a = a.send(b), b.send(a)

    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)


@pytest.mark.parametrize("seed", seeds(6))
def test_a_restart_right_after_a_handshake_is_not_taken_for_a_crossing(seed):
    world = World(seed)
    a, b = world.pair()
    connected(world, a, b)
    b.restart()
    b.want(1)
    world.run(1)
    to_b, to_a = a.send(b), b.send(a)

    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)


def test_after_a_silent_restart_traffic_goes_on_once_silence_is_noticed(world, pair):
    a, b = pair
    connected(world, a, b)
    b.restart()
    keep_talking(world, a, b, 17)
    a.received.clear()
    b.received.clear()

    to_a, to_b = keep_talking(world, a, b, 30)

    assert (a.received, b.received) == (to_a, to_b)


def test_a_new_forwarder_never_uses_an_old_key(world, pair):
    a, b = pair
    connected(world, a, b)
    a.restart_forwarder()
    a.sessions.start_over()
    a.want(1)
    sent = a.send(b)

    world.run(1)

    assert b.received == sent
    assert len(world.sent("initiation", "a")) == 2


def test_a_peer_that_comes_back_under_another_key_is_another_peer(world, pair):
    a, b = pair
    connected(world, a, b)
    b.key = PrivateKey.generate(seeded("another key"))
    a.tell(link.RemovePeer(1))
    a.sessions.remove_peer(1)
    a.know(b)
    b.restart()
    sent = a.send(b)

    world.run(1)

    assert b.received == sent
