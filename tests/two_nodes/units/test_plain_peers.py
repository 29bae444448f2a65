"""Peers that do not know about units."""

from __future__ import annotations

from tests.sim import World
from tests.two_nodes.units.streams import Stream, kinds


def test_a_plain_peer_gets_three_hellos_for_a_keypair_and_no_more(world):
    a = world.node("a")
    world.ciphers = []
    b = world.node("b")
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)

    stream.go_on(30, every=0.1, size=3000)

    assert b.received == stream.sent
    assert b.drops == {"inner_version": 3}
    assert "fragment" not in kinds(world)


def test_a_new_keypair_gives_a_plain_peer_none_and_a_later_one_a_single_one(world):
    a = world.node("a")
    world.ciphers = []
    b = world.node("b")
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)

    stream.go_on(140, every=0.5, size=3000)
    assert b.drops == {"inner_version": 3}
    stream.go_on(600, every=2.0, size=3000)

    assert b.received == stream.sent
    assert b.drops == {"inner_version": 4}


def test_a_plain_peer_that_becomes_one_of_ours_is_found_when_its_program_begins_anew(world):
    a = world.node("a")
    world.ciphers, ciphers = [], world.ciphers
    b = world.node("b")
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)
    stream.go_on(1800, every=10.0, size=3000)
    assert "fragment" not in kinds(world)

    b.ciphers = list(ciphers)
    b.restart()
    b.want(1)
    for _ in range(4):
        stream.go_on(200, every=2.0, size=3000)

    assert "fragment" in kinds(world)


def test_a_plain_peer_that_becomes_one_of_ours_and_sends_itself_is_found_at_once(world):
    a = world.node("a")
    world.ciphers, ciphers = [], world.ciphers
    b = world.node("b")
    a.know(b)
    b.know(a)
    Stream(world, a, b).go_on(1800, every=10.0, size=3000)

    b.ciphers = list(ciphers)
    b.restart()
    Stream(world, b, a).go_on(5, every=0.5, size=3000)
    Stream(world, a, b).go_on(5, every=0.5, size=3000)

    assert "fragment" in kinds(world)


def test_who_only_sees_single_packets_sees_no_hello(world):
    plain = World(has_gro=world.has_gro)
    traces = []
    for each in (world, plain):
        a, b = each.pair()
        for _ in range(400):
            a.send(b)
            b.send(a)
            each.run(1)
        traces.append([(at, who, kind, size) for at, who, kind, size in each.network.sent])
        assert a.drops == b.drops == {}

    assert traces[0] == traces[1]
    assert world.network.digest == plain.network.digest
