"""Transfers while keys change, handshakes cross and ends move."""

from __future__ import annotations

import pytest

from overlay.forwarding.bulk.size import WHOLE
from tests.hypothesis_profiles import seeds
from tests.network import Nat
from tests.sim import World
from tests.two_nodes.units.streams import BOTH, Stream, are_units_in_use, connected, extra, forget, missing


@pytest.mark.parametrize("both_ways", [False, True])
def test_rekeying_in_mid_transfer_loses_nothing(world, pair, both_ways):
    a, b = pair
    there, back = Stream(world, a, b), Stream(world, b, a)
    for _ in range(300):
        there.go_on(0.5, every=0.5, size=5000)
        if both_ways:
            back.go_on(0.01, size=5000)
    world.run(1)

    assert missing(there.sent, b.received) == missing(back.sent, a.received) == {}
    assert extra(there.sent, b.received) == extra(back.sent, a.received) == {}
    assert len(world.sent("initiation")) >= 2
    assert are_units_in_use(a)


def test_a_transfer_under_fire_of_handshakes_loses_nothing(world, pair):
    a, b = pair
    stream = Stream(world, a, b)
    for number in range(20):
        (a if number % 2 else b).want(1)
        stream.go_on(1, every=0.011, size=5000)
    world.run(1)

    assert missing(stream.sent, b.received) == extra(stream.sent, b.received) == {}
    assert b.peer().traffic.rx_units > 1000


@pytest.mark.parametrize("seed", seeds(6))
def test_after_handshakes_that_crossed_units_are_used_both_ways(seed):
    world = World(seed, ciphers=BOTH)
    a, b = world.pair()
    there, back = Stream(world, a, b), Stream(world, b, a)
    to_b, to_a = a.send_super(b, 20_000), b.send_super(a, 20_000)
    for _ in range(20):
        there.go_on(0.01)
        back.go_on(0.01)
    world.run(0.1)

    assert (a.received, b.received) == (to_a + back.sent, to_b + there.sent)
    assert are_units_in_use(a)
    assert are_units_in_use(b)


@pytest.mark.parametrize("seed", seeds(4))
def test_units_go_under_whichever_keypair_a_peer_uses_after_handshakes_that_crossed(seed):
    world = World(seed, ciphers=BOTH)
    a, b = world.pair()
    a.want(1)
    b.want(1)
    world.run(1)
    keeps, uses = (a, b) if a.peer().keypairs.next else (b, a)
    lost = keeps.peer().keypairs.next
    keypairs = uses.peer().keypairs
    keypairs.current, keypairs.previous = keypairs.previous, keypairs.current
    assert keypairs.current.remote_index == lost.local_index
    stream = Stream(world, uses, keeps)

    stream.go_on(2)
    world.run(1)

    assert keeps.received == stream.sent
    assert keeps.peer().keypairs.next is lost
    assert are_units_in_use(uses)
    assert keypairs.current.bulk.size.limit == WHOLE


def test_a_responder_sends_no_unit_before_it_has_received_under_the_keypair(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(125)
    forget(a, b)
    held = []
    world.network.lose = lambda flight: (
        flight.source[0] in a.addresses and flight.kind == "keepalive" and not held.append(flight)
    )
    a.want(1)
    world.run(1)
    assert held
    index = b.peer().keypairs.next.local_index

    b.send_super(a, 20_000)
    world.run(1)

    assert b.peer().keypairs.next.local_index == index
    assert b.peer().keypairs.next.bulk.key is None
    assert b.peer().keypairs.next.counter == 0


def test_a_transfer_follows_a_sender_that_moves(world, pair):
    a, b = pair
    connected(world, a, b)
    stream = Stream(world, a, b)
    for number in range(10):
        a.addresses = [f"198.51.100.{number}"]
        stream.go_on(0.2)
    world.run(1)

    assert b.received == stream.sent
    assert b.peer().endpoint == ("198.51.100.9", a.port)


def test_a_transfer_follows_a_nat_that_forgets(world):
    a, b = world.node("a"), world.node("b")
    a.know(b)
    b.know(a, endpoint=None)
    world.network.nats["192.0.2.1"] = Nat("203.0.113.7", 5)
    stream = Stream(world, a, b)
    for _ in range(3):
        stream.go_on(0.5)
        world.run(20)

    assert b.received == stream.sent
