"""Paths that do not carry units, full sockets, and peers that lie about either."""

from __future__ import annotations

import errno

import pytest

from overlay.forwarding.bulk.size import SMALLEST, WHOLE
from overlay.wire import control
from tests.packets import ACK, CWR, ECE, FIN, PSH
from tests.two_nodes.units.streams import Stream, are_units_in_use, connected, extra, forget, missing

# A path that does not carry units


def test_a_box_that_drops_the_new_type_costs_half_a_second_and_then_a_unit_now_and_then(world, pair):
    a, b = pair
    world.network.lose = lambda flight: flight.kind == "fragment"
    stream = Stream(world, a, b)
    stream.go_on(0.6)
    late = stream.go_on(20, every=0.1, size=9000)
    world.run(1)

    lost = missing(late, b.received)
    assert sum(lost.values()) <= 4 * SMALLEST  # trials after 1, 2, 4 and 8 seconds
    assert len(world.sent("initiation")) == 1
    assert extra(stream.sent, b.received) == {}


def test_a_path_with_much_loss_gets_messages_and_a_clean_one_units_again(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.loss = 0.05
    stream = Stream(world, a, b)
    stream.go_on(5, every=0.05)
    assert not are_units_in_use(a)

    world.network.loss = 0.0
    stream.go_on(40, every=0.1, size=9000)

    assert a.peer().keypairs.current.bulk.size.limit == WHOLE
    assert extra(stream.sent, b.received) == {}


def test_smaller_units_are_the_segments_of_the_whole(world, pair):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = 16

    sent = [
        each
        for number, flags in enumerate([ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | CWR | ECE | PSH])
        for each in a.send_super(b, 60_000, sequence=number * 60_000, flags=flags, identifier=65_530)
    ]
    world.run(0.1)

    assert b.received == sent
    assert a.peer().traffic.tx_units >= 5 * 3


# The socket is full


@pytest.mark.parametrize("limit", [64, 16, 4])
@pytest.mark.parametrize("sends", range(1, 6))
def test_a_socket_that_fills_in_the_middle_of_units_keeps_the_right_bytes(world, pair, limit, sends):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = limit
    full = FullAfter(a.sockets[0], sends)
    sent = [
        each for number in range(5) for each in a.send_super(b, 64_000 + number, sequence=number * 70_000)
    ] + a.send(b, 5)
    world.run(0.05)
    full.release()

    world.run(0.1)

    assert b.received == sent


class FullAfter:
    """Makes a socket full after that many sends, until it is released."""

    def __init__(self, raw, sends):
        self.raw = raw
        raw.errors = self
        self.left, self.is_released = sends, False

    def __bool__(self):
        self.left -= 1
        return self.left < 0 and not self.is_released

    def popleft(self):
        return errno.EAGAIN

    def release(self):
        self.is_released = True


def test_a_trial_that_fills_the_socket_keeps_the_right_bytes(world, pair):
    a, b = pair
    connected(world, a, b)
    size = a.peer().keypairs.current.bulk.size
    size.is_plain = True
    full = FullAfter(a.sockets[0], 1)
    sent = a.send_super(b, 64_000)
    world.run(0.05)
    full.release()

    world.run(0.1)

    assert b.received == sent
    assert not size.is_plain


# Peers that lie


class Liar:
    """Units of a keypair, except for what is reported about them."""

    def __init__(self, bulk, lie):
        self._bulk, self.report = bulk, lambda _: lie

    def __getattr__(self, name):
        return getattr(self._bulk, name)


@pytest.mark.parametrize("fields", [(2**63, 2**63), (0, 0), (5, 500), (2**64 - 1, 0)])
def test_a_peer_whose_reports_lie_hurts_itself_alone(world, fields):
    a, b, c = world.node("a"), world.node("b"), world.node("c")
    for other in (b, c):
        a.know(other)
        other.know(a)
        a.send_super(other, 3000)
        world.run(1)
    forget(a, b, c)
    lie = control.build(control.Report(*fields, 0, 0))
    bulk = b.peer().keypairs.current.bulk
    b.peer().keypairs.current.bulk = Liar(bulk, lie)
    to_b, to_c = Stream(world, a, b), Stream(world, a, c)
    for _ in range(20):
        to_b.go_on(0.05, every=0.05)
        to_c.go_on(0.05, every=0.05)
    world.run(1)

    assert b.received == to_b.sent
    assert c.received == to_c.sent
    assert a.core.peers[2].keypairs.current.bulk.size.limit == WHOLE
    assert a.drops == {}
