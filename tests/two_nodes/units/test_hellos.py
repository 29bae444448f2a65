"""Hellos that are lost."""

from __future__ import annotations

import errno
import math

import pytest

from tests.two_nodes.units.streams import HELLO, RTT, Stream, are_units_in_use, connected, forget, kinds


def control_of(node, flight):
    """Return whether *flight* is a hello of *node*."""
    return flight.kind == "data" and flight.source[0] in node.addresses and len(flight.datagram) == HELLO


@pytest.mark.parametrize("side", ["caller", "answerer"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_hello_lost_either_way_is_said_again(world, pair, side, count):
    a, b = pair
    lost = []
    sender = a if side == "caller" else b
    world.network.lose = lambda flight: (
        control_of(sender, flight) and len(lost) < count and lost.append(flight) is None
    )
    stream = Stream(world, a, b)

    stream.go_on(0.5)
    assert not are_units_in_use(a)
    stream.go_on([1, 5][count - 1])

    assert len(lost) == count
    assert are_units_in_use(a)
    assert b.received == stream.sent


def test_with_every_hello_lost_the_peer_is_plain(world, pair):
    a, b = pair
    lost = []
    world.network.lose = lambda flight: control_of(a, flight) and lost.append(flight) is None
    stream = Stream(world, a, b)

    stream.go_on(20, every=0.1)

    assert len(lost) == 3
    assert b.received == stream.sent
    assert "fragment" not in kinds(world)


@pytest.mark.parametrize("side", ["caller", "answerer"])
def test_a_hello_for_which_the_socket_is_full_is_not_lost(world, pair, side):
    """Before, it was counted as said: a transfer of less than a second went without a single unit."""
    a, b = pair
    a.send(b)
    world.run(1)
    a.received.clear()
    b.received.clear()
    (a if side == "caller" else b).sockets[0].errors.append(errno.EAGAIN)
    stream = Stream(world, a, b)

    stream.go_on(0.2)
    world.run(1)

    assert b.received == stream.sent
    assert a.peer().traffic.tx_units > 10
    assert not any(node.sockets[0].errors for node in (a, b))


def test_a_report_for_which_the_socket_is_full_is_not_lost(world, pair):
    a, b = pair
    connected(world, a, b)
    size = a.peer().keypairs.current.bulk.size
    b.sockets[0].errors.append(errno.EAGAIN)

    a.send_super(b, 20_000)
    world.run(0.1)

    assert not b.sockets[0].errors
    assert size.waits_since == math.inf


def test_a_side_that_has_heard_a_hello_sends_units_although_its_own_is_not_seen(world, pair):
    a, b = pair
    world.network.lose = lambda flight: control_of(b, flight)
    there, back = Stream(world, a, b), Stream(world, b, a)
    there.go_on(0.05)
    forget(a, b)
    back.go_on(0.2)
    world.run(0.1)

    assert a.received == back.sent
    assert a.peer().traffic.rx_units > 10
    assert not are_units_in_use(a)


def test_a_new_keypair_carries_no_unit_before_its_own_hello_was_heard_and_counts_from_0(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(5)
    a.want(1)
    world.run(1)
    forget(a, b)
    for node in (a, b):
        assert node.peer().keypairs.current.bulk.key is None

    sent = a.send_super(b, 20_000)
    world.run(RTT / 4)
    assert "fragment" not in kinds(world)
    world.run(1)
    first = []
    world.network.lose = lambda flight: first.append(flight.datagram) is not None
    sent += a.send_super(b, 20_000, sequence=20_000)
    world.run(1)

    assert b.received == sent
    assert {datagram[8:16] for datagram in first if datagram[0] == 5} == {bytes(8)}


def test_a_hello_holds_for_no_other_peer(world):
    a, b, c = world.node("a"), world.node("b"), world.node("c")
    for other in (b, c):
        a.know(other)
        other.know(a)
    connected(world, a, b)
    world.network.lose = lambda flight: control_of(c, flight)

    sent = a.send_super(c, 20_000)
    world.run(1)
    sent += a.send_super(c, 20_000, sequence=20_000)
    world.run(1)

    assert c.received == sent
    assert a.core.peers[2].traffic.tx_units == 0
