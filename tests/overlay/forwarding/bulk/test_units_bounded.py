"""Units that never become complete: floods, and giving up in time."""

from __future__ import annotations

from overlay.forwarding.bulk.reassembly import (
    REASSEMBLY_TIME,
    UNITS_FROM_ELSEWHERE,
    UNITS_PER_SESSION,
    UNITS_TOTAL,
)
from overlay.link import messages as link
from tests import units
from tests.network import Flight
from tests.overlay.forwarding.bulk.bench import ELSEWHERE, PIECE
from tests.sim import World


def first_fragments(bench, count, start=1000):
    index = bench.key.receiver_index
    return [units.fragment(0, 40, units.AES, index, start + number, bytes(PIECE)) for number in range(count)]


def test_a_flood_from_the_endpoint_is_bounded_and_costs_no_later_unit(bench):
    bench.arrive(*first_fragments(bench, 500))
    assert len(bench.reassembly) == UNITS_PER_SESSION
    assert bench.b.drops == {"unit_incomplete": 500 - UNITS_PER_SESSION}

    datagrams, segments = bench.unit()
    bench.arrive(*datagrams)

    assert bench.b.received == segments


def test_a_flood_from_elsewhere_costs_no_unit_of_the_endpoint(bench):
    datagrams, segments = bench.unit(size=9000)
    bench.arrive(*datagrams[:3])

    for number, each in enumerate(first_fragments(bench, 300)):
        bench.arrive(each, source=(f"203.0.113.{number % 250}", number))
    assert len(bench.reassembly) == UNITS_FROM_ELSEWHERE + 1
    bench.arrive(*datagrams[3:])

    assert bench.b.received == segments


def test_a_flood_of_one_session_costs_no_unit_of_another():
    world = World(ciphers=[units.AES])
    b = world.node("b")
    others = [world.node(f"n{number}") for number in range(3)]
    for other in others:
        b.know(other)
        other.know(b)
        other.send_super(b, 3000)
    world.run(1)
    b.received.clear()
    flooded, *rest = (b.peer(number) for number in (1, 2, 3))
    index = flooded.keypairs.current.local_index
    destination = (b.addresses[0], b.port)
    flood = [
        Flight(flooded.endpoint, destination, units.fragment(0, 9, units.AES, index, number, bytes(99)))
        for number in range(50, 250)
    ]

    b.sockets[0].inbox += flood
    sent = others[1].send_super(b, 30_000) + others[2].send_super(b, 30_000)
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert [dict(peer.drops) for peer in rest] == [{}, {}]


def test_all_sessions_together_are_bounded():
    world = World(ciphers=[units.AES])
    b = world.node("b")
    for number in range(6):
        other = world.node(f"n{number}")
        b.know(other)
        other.know(b)
        other.send_super(b, 3000)
    world.run(1)
    flood = []
    for peer in b.core.peers.values():
        index = peer.keypairs.current.local_index
        flood += [
            Flight(
                peer.endpoint, (b.addresses[0], b.port), units.fragment(0, 9, units.AES, index, n, bytes(99))
            )
            for n in range(50, 90)
        ]

    b.sockets[0].inbox += flood
    world.run(0)

    assert len(b.core.inbound.units.reassembly) == UNITS_TOTAL


def test_an_incomplete_unit_is_given_up_in_time(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams[:-1])

    bench.world.run(REASSEMBLY_TIME)
    bench.arrive(datagrams[-1])

    assert bench.b.received == []
    assert bench.b.drops == {"unit_incomplete": 1}
    assert len(bench.reassembly) == 1


def test_a_unit_given_up_may_come_again_whole(bench):
    datagrams, segments = bench.unit(size=9000)
    bench.arrive(*datagrams[:-1])
    bench.world.run(REASSEMBLY_TIME)

    bench.arrive(*datagrams)

    assert bench.b.received == segments


def test_fragments_that_lacked_are_reported(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams[2:])
    bench.world.run(REASSEMBLY_TIME)

    bench.arrive(*bench.unit()[0])

    assert bench.peer.keypairs.current.bulk.missing == 2


def test_fragments_that_lacked_of_what_came_from_elsewhere_are_not_reported(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams[2:], source=ELSEWHERE)
    bench.world.run(REASSEMBLY_TIME)

    bench.arrive(*bench.unit()[0][1:])

    assert bench.b.drops == {"unit_incomplete": 1}
    assert bench.peer.keypairs.current.bulk.missing == 0


def test_fragments_of_a_peer_that_is_removed_are_forgotten(bench):
    bench.arrive(*first_fragments(bench, 5))

    bench.b.tell(link.RemovePeer(1))

    assert len(bench.reassembly) == 0
    bench.arrive(*first_fragments(bench, 5))
    assert len(bench.reassembly) == 0
