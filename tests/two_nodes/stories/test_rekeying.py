"""When a session is renewed, expires and is wiped, and when a peer is silent."""

from __future__ import annotations

import math

import pytest

from overlay.link import messages as link
from tests.two_nodes.stories.talking import RTT, connected, keep_talking


def test_a_session_in_use_is_renewed_after_120_seconds_without_a_lost_packet(world, pair):
    a, b = pair
    connected(world, a, b)

    to_a, to_b = keep_talking(world, a, b, 400)

    assert (a.received, b.received) == (to_a, to_b)
    assert [at - 1000 for at in world.sent("initiation")] == [
        pytest.approx(n * 120.1, abs=3) for n in range(4)
    ]
    assert a.drops + b.drops == {}


def test_only_the_initiator_renews(world, pair):
    a, b = pair
    connected(world, a, b)

    keep_talking(world, a, b, 400)

    assert world.sent("initiation", "b") == []


def test_the_responder_s_traffic_alone_keeps_a_session_going(world, pair):
    a, b = pair
    sent = []
    connected(world, a, b)
    for _ in range(400):
        sent += b.send(a)
        world.run(1)

    assert a.received == sent
    assert len(world.sent("initiation", "a")) >= 3


def test_a_receive_after_165_seconds_renews_at_once(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(166)
    start = world.clock.now
    b.send(a)

    world.run(1)

    assert world.sent("initiation", "a", since=start) == [pytest.approx(start + RTT / 2)]


def test_a_receive_before_165_seconds_waits_for_a_send(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(150)
    start = world.clock.now
    b.send(a)

    world.run(9)

    assert world.sent("initiation", since=start) == []


def test_after_180_seconds_a_keypair_is_dead(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(181)
    before = world.clock.now
    sent = b.send(a)

    world.run(1)

    assert a.received == sent
    assert len(world.sent("initiation", "b", since=before)) == 1


def test_a_message_under_an_expired_keypair_is_refused(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send(b)
    held = []
    world.network.lose = lambda flight: flight.kind == "data" and not held.append(flight)
    world.run(1)
    world.network.lose = lambda flight: False
    world.run(180)

    world.network.send(held[0])
    world.run(0.1)

    assert b.received == []
    assert b.drops["keypair_expired"] == 1


def test_keys_are_wiped_after_540_seconds(world, pair):
    a, b = pair
    connected(world, a, b)

    world.run(545)

    assert a.core.by_index == b.core.by_index == {}


def test_silence_of_15_seconds_makes_a_new_handshake(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(20)
    world.network.lose = lambda flight: flight.source[0] == b.addresses[0]
    start = world.clock.now
    a.send(b)

    world.run(16)

    assert world.sent("initiation", since=start) == [pytest.approx(start + 15.17, abs=0.2)]


def silences(node):
    return [report.is_over for report in node.reported if isinstance(report, link.Silence)]


def test_a_peer_that_answers_nothing_for_15_seconds_is_silent_until_it_is_heard(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(20)
    world.network.lose = lambda flight: True
    for _ in range(14):
        a.send(b)
        world.run(1)
    assert silences(a) == []

    for _ in range(40):
        a.send(b)
        world.run(1)
    assert silences(a) == [False]
    assert a.silent == {1}

    world.network.lose = lambda flight: False
    b.send(a)
    world.run(1)
    assert silences(a) == [False, True]
    assert a.silent == set()


def test_a_peer_that_is_sent_nothing_is_not_silent(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(170)

    assert silences(a) == silences(b) == []


def test_a_peer_given_up_that_is_heard_under_old_keys_is_given_up_no_longer(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: True
    while not a.sessions.status(1).is_given_up:
        a.send(b)
        world.run(1)

    world.network.lose = lambda flight: flight.kind != "data"
    b.send(a)
    world.run(1)

    assert not a.sessions.status(1).is_given_up


def test_silence_that_the_link_did_not_take_is_told_later(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: True
    a.send(b)
    a.link_size = 0
    world.run(16)
    a.link_size = math.inf
    a.send(b)
    world.run(16)

    assert silences(a) == [False]
