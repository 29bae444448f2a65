"""Two agents with lanes: separate keys, counters and ports for each, from the first messages on."""

from __future__ import annotations

import dataclasses

import pytest

from overlay.forwarding import counters
from overlay.link import messages as link
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305
from overlay.wire.lanes import index_of
from tests.sim import LANE_PORTS, PORT, World
from tests.two_nodes.units.streams import Stream, extra, missing

BOTH = (AES_256_GCM, CHACHA20_POLY1305)


def lanes_of(node):
    """Return which lanes carry packets."""
    keypair = node.peer().keypairs.current
    return [True] if keypair.lanes is None else keypair.lanes.are_open()


def flows(node, other, count, **how):
    """Let a node send on every lane: *count* packets in each of many flows; return them."""
    return [
        packet for port in range(4000, 4032) for packet in node.send(other, count, ports=(port, 2000), **how)
    ]


def sent_by(world, node):
    """Return the datagrams that *node* sends from now on, as they leave."""
    seen, send = [], world.network.send

    def record(flight, sender="?"):
        if sender == node.name:
            seen.append(flight)
        send(flight, sender)

    world.network.send = record
    return seen


def use(world, *nodes):
    """Let nodes that know each other exchange hellos and try their lanes."""
    for one, other in (nodes, nodes[::-1]):
        flows(one, other, 1)
        world.run(2)
    for each in nodes:
        each.received.clear()


@pytest.fixture
def world():
    return World(lanes=4, ciphers=BOTH)


@pytest.fixture
def pair(world):
    nodes = world.pair()
    use(world, *nodes)
    return nodes


def test_every_lane_is_open_once_both_have_said_hello(pair):
    assert [lanes_of(node) for node in pair] == [[True] * 4] * 2


def test_a_lane_has_a_port_an_index_and_counters_of_its_own(world, pair):
    a, b = pair
    seen = sent_by(world, a)

    sent = flows(a, b, 3)
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    session = a.peer().keypairs.current
    by_port = {}
    for flight in seen:
        key = flight.source[1], int.from_bytes(flight.datagram[4:8], "little")
        by_port.setdefault(key, []).append(int.from_bytes(flight.datagram[8:16], "little"))
    ports = [PORT, *(LANE_PORTS + lane for lane in (1, 2, 3))]
    assert by_port.keys() == {(port, index_of(session.remote_index, lane)) for lane, port in enumerate(ports)}
    for used in by_port.values():
        assert used == sorted(set(used))
    assert {flight.destination for flight in seen} == {(b.addresses[0], PORT)}


def test_units_go_by_lanes(world, pair):
    a, b = pair
    streams = [Stream(world, a, b, ports=(port, 80)) for port in range(4000, 4016)]
    for _ in range(30):
        for stream in streams:
            stream.go_on(0.01)
    seen = sent_by(world, a)
    for stream in streams:
        stream.go_on(0.01)
    world.run(1)

    sent = [packet for stream in streams for packet in stream.sent]
    assert missing(sent, b.received) == extra(sent, b.received) == {}
    units = {flight.source[1] for flight in seen if flight.kind == "fragment"}
    assert units == {PORT, *(LANE_PORTS + lane for lane in (1, 2, 3))}
    assert b.drops == {}


@pytest.mark.parametrize(("theirs", "lanes"), [(1, 1), (2, 2), (8, 4)])
def test_nodes_with_different_numbers_of_lanes_have_the_smaller(theirs, lanes):
    world = World(lanes=4, ciphers=BOTH)
    a = world.node("a")
    world.lanes = theirs
    b = world.node("b")
    a.know(b)
    b.know(a)
    use(world, a, b)

    assert lanes_of(a) == [True] * lanes
    assert lanes_of(b) == [True] * lanes
    there, back = flows(a, b, 2), flows(b, a, 2)
    world.run(1)
    assert (sorted(b.received), sorted(a.received)) == (sorted(there), sorted(back))


def test_a_peer_that_says_nothing_of_lanes_gets_none(world):
    a = world.node("a")
    world.ciphers, world.lanes = (), 1
    b = world.node("b")
    a.know(b)
    b.know(a)
    use(world, a, b)
    seen = sent_by(world, a)

    sent = flows(a, b, 2)
    world.run(1)

    assert lanes_of(a) == [True]
    assert sorted(b.received) == sorted(sent)
    assert {flight.source[1] for flight in seen} == {PORT}


def test_a_lane_whose_port_does_not_pass_is_not_used(world):
    world.network.lose = lambda flight: flight.source[1] == LANE_PORTS + 2
    a, b = world.pair()
    use(world, a, b)
    world.run(5)

    sent = flows(a, b, 2)
    world.run(1)

    assert lanes_of(a) == [True, True, False, True]
    assert sorted(b.received) == sorted(sent)


def test_what_is_told_of_a_peer_says_how_many_of_its_lanes_carry_packets(world):
    world.network.lose = lambda flight: flight.source[1] == LANE_PORTS + 2
    a, b = world.pair()
    use(world, a, b)
    world.run(5)

    told = counters.row(a.peer(), 1420, 0, 0, 4)

    assert (told.session_lanes, told.open_lanes) == (4, 3)


@pytest.mark.slow
def test_a_lane_whose_port_is_closed_later_is_given_up_and_tried_again(world, pair):
    a, b = pair
    world.network.lose = lambda flight: flight.source[1] == LANE_PORTS + 1
    for _ in range(20):
        flows(a, b, 1)
        b.send(a)
        world.run(1)
    assert lanes_of(a) == [True, False, True, True]
    b.received.clear()

    sent = flows(a, b, 1)
    world.run(1)
    assert sorted(b.received) == sorted(sent)

    world.network.lose = lambda flight: False
    for _ in range(70):
        flows(a, b, 1)
        b.send(a)
        world.run(1)
    assert lanes_of(a) == [True] * 4


def test_an_idle_pair_sends_no_probes(world, pair):
    world.run(30)
    since = world.clock.now

    world.run(60)

    assert [each for each in world.network.sent if each[0] >= since] == []


@pytest.mark.slow
def test_flows_keep_their_lane_while_keys_change(world, pair):
    a, b = pair
    lanes, seen = {}, sent_by(world, a)
    sent = []
    for _ in range(300):
        sent += flows(a, b, 1)
        b.send(a)
        world.run(1)

    assert sorted(b.received) == sorted(sent)
    for flight in seen:
        if flight.kind == "data" and len(flight.datagram) == 128:
            lanes.setdefault(flight.source[1], set()).add(int.from_bytes(flight.datagram[4:8], "little") % 8)
    assert sorted(map(len, lanes.values())) == [1, 1, 1, 1]
    assert len(world.sent("initiation")) >= 2
    assert b.drops == {}


@pytest.mark.slow
def test_a_session_that_is_retired_takes_its_lanes_with_it(world, pair):
    a, b = pair
    before = set(a.core.by_index)
    assert len(before) == 4
    for _ in range(400):
        flows(a, b, 1)
        world.run(1)

    assert not before & set(a.core.by_index)
    assert len(a.core.by_index) <= 8


def test_a_peer_that_begins_anew_without_lanes_is_reached(world, pair):
    a, b = pair
    b.queues = b.queues[:1]
    b.restart()
    b.received.clear()
    for _ in range(30):
        flows(a, b, 1)
        world.run(1)
    b.received.clear()

    sent = flows(a, b, 1)
    world.run(1)

    assert lanes_of(a) == [True]
    assert sorted(b.received) == sorted(sent)


class Pool:
    """A NAT that gives each port of one host an address of its own."""

    def __init__(self, addresses):
        self.addresses = addresses

    def outside(self, source, _):
        return f"203.0.113.{source[1] % 100}", source[1]

    def inside(self, flight, _):
        is_here = flight.destination[0].startswith("203.0.113.")
        return (
            dataclasses.replace(flight, destination=(self.addresses[0], flight.destination[1]))
            if is_here
            else flight
        )


def test_lanes_that_seem_to_come_from_other_hosts_are_not_used(world):
    a, b = world.pair()
    world.network.nats[a.addresses[0]] = Pool(a.addresses)
    use(world, a, b)
    for _ in range(5):
        flows(a, b, 1)
        b.send(a)
        world.run(1)

    assert lanes_of(a) == [True, False, False, False]
    assert b.peer().endpoint == (f"203.0.113.{PORT % 100}", PORT)
    moves = [report for report in b.reported if isinstance(report, link.Moved)]
    assert len(moves) <= 1


@pytest.mark.parametrize("lane", range(4))
def test_the_first_packet_from_another_address_is_answered_there(world, pair, lane):
    a, b = pair
    a.addresses = ["192.0.2.77", *a.addresses[1:]]
    a.peer().local.forget_source()
    a.lane_of = lambda packet: lane

    a.send(b)
    world.run(0.5)
    sent = b.send(a)
    world.run(0.5)

    assert b.peer().endpoint == ("192.0.2.77", PORT)
    assert a.received == sent


def test_a_node_that_roams_is_followed(world, pair):
    a, b = pair
    a.addresses = ["192.0.2.77", *a.addresses[1:]]
    for _ in range(40):
        flows(a, b, 1)
        world.run(1)
    a.received.clear()

    sent = flows(b, a, 1)
    world.run(1)

    assert b.peer().endpoint == ("192.0.2.77", PORT)
    assert sorted(a.received) == sorted(sent)
    assert lanes_of(b) == [True] * 4


def test_a_second_hello_with_another_number_of_lanes_changes_nothing(world, pair):
    a, _ = pair
    keypair = a.peer().keypairs.current
    before = list(keypair.lanes.keypairs)

    for theirs in (1, 4, 2, 8):
        a.core.lanes.heard(keypair, theirs, world.clock.now)

    assert keypair.lanes.keypairs == before


@pytest.mark.slow
def test_lanes_cost_no_counter_twice(world, pair):
    a, b = pair
    seen = sent_by(world, a)
    for number in range(200):
        flows(a, b, 1)
        if number % 10 == 0:
            a.send_super(b, 20_000, ports=(4000 + number, 80))
        world.run(0.7)

    used = [
        (f.datagram[4:16], f.datagram[0], f.datagram[1] if f.datagram[0] == 5 else 0)
        for f in seen
        if f.datagram[0] in (4, 5)
    ]
    assert len(used) == len(set(used))
