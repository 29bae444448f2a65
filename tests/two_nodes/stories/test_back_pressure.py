"""Sockets that are full."""

from __future__ import annotations

from tests.two_nodes.stories.talking import connected


def test_while_the_socket_is_full_all_is_read_and_a_little_is_held(world, pair):
    a, b = pair
    connected(world, a, b)
    a.sockets[0].is_full = True
    sent = a.send(b, 10) + a.send_super(b, 60_000) + a.send(b, 200)
    world.run(1)
    assert not a.tun.outgoing
    assert b.received == []

    a.sockets[0].is_full = False
    world.run(1)

    assert b.received == sent


def test_what_is_more_than_a_little_is_dropped_and_counted(world, pair):
    a, b = pair
    connected(world, a, b)
    a.sockets[0].is_full = True
    sent = [packet for i in range(20) for packet in a.send_super(b, 60_000, sequence=i * 60_000)]
    world.run(1)

    a.sockets[0].is_full = False
    world.run(1)

    first_dropped = next(i for i, packet in enumerate(sent) if packet not in b.received)
    assert b.received[:first_dropped] == sent[:first_dropped]
    assert len(b.received) - first_dropped < 20, (
        "more than the short ends of trains fits behind what is dropped"
    )
    assert [packet for packet in sent if packet in b.received] == b.received, "in another order"
    assert a.drops == {"send_full": len(sent) - len(b.received)}
    assert len(sent) * 0.35 < len(b.received) < len(sent) * 0.45


def test_trains_that_wait_for_the_socket_are_not_overwritten(world, pair):
    a, b = pair
    connected(world, a, b)
    a.sockets[0].is_full = True
    sent = [a.send_super(b, 50_000 + number, sequence=number * 50_000) for number in range(3)]
    world.run(1)

    a.sockets[0].is_full = False
    world.run(1)

    assert b.received == [packet for train in sent for packet in train]


def test_inbound_traffic_goes_on_while_a_socket_is_full(world, pair):
    a, b = pair
    connected(world, a, b)
    a.sockets[0].is_full = True
    a.send(b)
    world.run(1)
    sent = b.send(a, 5)

    world.run(1)

    assert a.received == sent


def test_packets_staged_while_the_socket_is_full_follow_in_order(world, pair):
    a, b = pair
    c = world.node("c")
    a.know(c)
    c.know(a)
    connected(world, a, b)
    sent = a.send(c, 50, size=1300)  # waits for the handshake
    world.run(0.011)
    to_b = a.send(b, 30, size=200) + a.send_super(b, 60_000)
    a.sockets[0].is_full = True
    world.run(2)
    assert c.received == []

    a.sockets[0].is_full = False
    world.run(0.1)

    assert c.received == sent
    assert b.received == to_b
    assert len(world.sent("initiation", "a")) == 2
