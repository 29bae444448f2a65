"""Floods, garbage and forgeries."""

from __future__ import annotations

import random

from overlay.crypto.keys import PrivateKey
from overlay.session.sessions import Sessions
from tests.network import Flight
from tests.overlay.session.pair import seeded
from tests.two_nodes.stories.talking import connected


def forged_initiations(victim, count):
    """Initiations of somebody who knows the public key of *victim*, each from another address."""
    attacker = PrivateKey.generate(seeded("attacker"))
    for number in range(count):
        sessions = Sessions(attacker, entropy=seeded(number), wall_ns=lambda: 0)
        sessions.add_peer(1, victim.key.public)
        (transmit,) = sessions.want(1, 0.0)
        source = (f"198.51.{100 + number // 250}.{number % 250 + 1}", 1000 + number)
        yield Flight(source, (victim.addresses[0], victim.port), transmit.datagram)


def test_under_load_a_peer_with_a_cookie_gets_through(world, pair):
    a, b = pair
    b.is_agent_busy = True
    for flight in forged_initiations(b, 500):
        world.network.send(flight)
    world.run(0.1)
    assert len(world.sent("cookie", "b")) == 500 - 64

    sent = a.send(b)
    world.run(0.1)
    assert len(world.sent("cookie", "b")) == 500 - 64 + 1
    for flight in forged_initiations(b, 70):  # so that the load lasts
        world.network.send(flight)
    world.run(5.5)
    b.is_agent_busy = False
    world.run(1)

    assert b.received == sent
    assert b.refused["initiation_unknown_peer"] == 64
    assert b.drops["handshake_under_load"] == 500 - 64 + 1 + 70


def test_a_flood_of_forged_cookie_replies_does_not_shut_the_door(world, pair):
    a, b = pair
    b.is_agent_busy = True
    for number in range(2000):
        forged = (3).to_bytes(4, "little") + number.to_bytes(60, "little")
        world.network.send(Flight(("198.51.100.1", 1000 + number), (b.addresses[0], b.port), forged))
    world.run(0.1)
    sent = a.send(b)
    world.run(5.5)  # once for the cookie
    b.is_agent_busy = False
    world.run(1)

    assert b.received == sent


def test_handshakes_that_found_the_link_full_do_not_shut_the_door(world, pair):
    a, b = pair
    b.is_agent_busy, b.link_size = True, 10
    for flight in forged_initiations(b, 200):
        world.network.send(flight)
    world.run(1)
    b.is_agent_busy, b.link_size = False, 1000
    world.run(1)
    sent = a.send(b)

    world.run(1)

    assert b.received == sent
    assert b.drops["link_full"] == 190
    assert not world.sent("cookie")


def test_garbage_and_forgeries_leave_a_session_as_it_was(world, pair):
    a, b = pair
    connected(world, a, b)
    chance = random.Random(1)
    keypair = b.peer().keypairs.current
    endpoint = b.peer().endpoint
    for _ in range(300):
        size = chance.choice([0, 1, 3, 4, 15, 16, 31, 32, 64, 92, 148, 1000])
        forged = bytearray(chance.randbytes(size))
        forged[:4] = chance.choice([b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0", b"\4\0\0\1", b""])[
            :size
        ]
        if chance.random() < 0.5:
            forged[4:8] = keypair.local_index.to_bytes(4, "little")
        world.network.send(Flight(("198.51.100.1", 7), (b.addresses[0], b.port), bytes(forged)))
    world.run(1)
    dropped = sum(b.drops.values()) + sum(b.refused.values())

    sent = a.send(b)
    world.run(1)

    assert b.received == sent
    assert b.peer().endpoint == endpoint
    assert dropped == 300
