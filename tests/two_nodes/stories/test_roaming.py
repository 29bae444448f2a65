"""Hosts that move, NATs, and sources that must not be believed."""

from __future__ import annotations

import math

import pytest

from overlay.link import messages as link
from tests.network import Flight, Nat
from tests.two_nodes.stories.talking import connected


@pytest.mark.parametrize("family", [0, 1], ids=["to IPv4", "to IPv6"])
def test_traffic_follows_a_peer_that_moved(world, pair, family):
    a, b = pair
    connected(world, a, b)
    a.addresses = ["198.51.100.7"] if family == 0 else ["2001:db8:7::7"]
    if family == 1:
        a.tell(link.SetEndpoint(1, (b.addresses[1], b.port, 0, 0), "dns"))
    a.tell(link.RenewSources())
    to_b = a.send(b)
    world.run(1)

    to_a = b.send(a)
    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)
    assert b.peer().endpoint[0] == a.addresses[0]
    assert [report.endpoint[0] for report in b.reported if isinstance(report, link.Moved)] == a.addresses


def test_a_silent_host_tells_its_peers_where_it_is_when_it_has_another_address(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(20)
    a.addresses = ["198.51.100.7"]

    a.tell(link.RenewSources(True))
    world.run(1)

    assert b.peer().endpoint[0] == "198.51.100.7"
    sent = b.send(a)
    world.run(1)
    assert a.received == sent


def test_a_change_of_routes_alone_tells_nobody(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(20)
    before = len(world.sent("Transport", by="a"))

    a.tell(link.RenewSources())
    world.run(1)

    assert len(world.sent("Transport", by="a")) == before


def flap(world, a, b, count, seconds):
    """Let *a* send *count* packets to *b* within *seconds*, by two ports in turn; return the packets."""
    sent = []
    for number in range(count):
        for udp in a.sockets:
            udp.port = a.port + number % 2
        sent += a.send(b)
        world.run(seconds / count)
    return sent


@pytest.mark.slow
def test_a_peer_that_comes_from_two_ports_in_turn_is_reported_once_a_second(world, pair):
    a, b = pair
    connected(world, a, b)
    before = len(b.reported)

    sent = flap(world, a, b, 3000, 0.25)
    world.run(1.5)

    moves = [report for report in b.reported[before:] if isinstance(report, link.Moved)]
    assert b.received == sent
    assert len(moves) == 2
    assert sum(report.count for report in moves) == 3000 - 1
    assert moves[-1].endpoint == b.peer().endpoint
    assert {moves[-1].endpoint[1], moves[-1].before[1]} == {a.port, a.port + 1}


def test_a_peer_that_comes_from_two_ports_in_turn_costs_no_handshake_of_another(world, pair):
    a, b = pair
    c = world.node("c")
    b.know(c)
    c.know(b)
    connected(world, a, b)
    b.link_size = 4  # an agent that is slow to read
    b.is_agent_busy = True
    flap(world, a, b, 50, 0.5)
    c.send(b)
    world.run(0.5)

    b.is_agent_busy = False
    to_b = c.send(b)
    world.run(0.5)

    assert b.received[-1:] == to_b
    assert b.drops["link_full"] == 0


def test_a_move_that_the_link_did_not_take_is_told_a_second_later(world, pair):
    a, b = pair
    connected(world, a, b)
    b.link_size = 0
    before = len(b.reported)
    flap(world, a, b, 2, 0.2)
    world.run(0.2)
    b.link_size = math.inf

    world.run(1)

    (move,) = [report for report in b.reported[before:] if isinstance(report, link.Moved)]
    assert move.endpoint == b.peer().endpoint


def test_the_path_to_a_peer_that_comes_from_two_ports_in_turn_is_searched_once_it_stays(world, pair):
    a, b = pair
    connected(world, a, b)
    b.send(a)
    world.run(0.5)
    flap(world, a, b, 10, 0.5)
    b.peer().path.due = math.inf  # the kernel is asked about the path once this is reset

    flap(world, a, b, 100, 10.0)
    is_asked_meanwhile = b.peer().path.due < math.inf
    world.run(6)

    assert not is_asked_meanwhile
    assert b.peer().path.due < math.inf


def test_a_source_address_that_went_away_costs_no_packet(world, pair):
    a, b = pair
    connected(world, a, b)
    a.addresses = ["198.51.100.7"]  # and nothing tells the forwarder: the kernel refuses the old one
    to_b = a.send(b, 3)

    world.run(1)

    assert b.received == to_b


def test_answers_follow_to_another_address_that_is_called(world, pair):
    a, b = pair
    connected(world, a, b)
    b.addresses.append("198.51.100.8")
    a.tell(link.SetEndpoint(1, ("198.51.100.8", b.port), "dns"))
    a.send(b)
    world.run(1)

    b.send(a)
    world.run(1)

    assert a.peer().endpoint[0] == "198.51.100.8"
    assert not [report for report in a.reported if isinstance(report, link.Moved)]


def test_a_datagram_under_way_does_not_take_back_the_endpoint_that_the_agent_has_set(world, pair):
    """Before, with pings each way in turn, one that did so left both where they were for good."""
    a, b = pair
    connected(world, a, b)
    to_a = b.send(a)
    while b.tun.outgoing:
        b.turn()

    a.tell(link.SetEndpoint(1, (b.addresses[1], b.port, 0, 0), "configuration"))
    world.run(0.1)
    to_b = a.send(b)
    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)
    assert (a.peer().endpoint[0], b.peer().endpoint[0]) == (b.addresses[1], a.addresses[1])


def test_a_peer_that_goes_on_sending_from_where_it_was_is_answered_there(world, pair):
    a, b = pair
    connected(world, a, b)
    a.tell(link.SetEndpoint(1, ("198.51.100.8", b.port), "configuration"))
    world.run(1)

    b.send(a)
    world.run(1)
    to_b = a.send(b)
    world.run(1)

    assert (a.peer().endpoint[0], b.received) == (b.addresses[0], to_b)


def test_answers_come_from_the_address_that_was_called(world, pair):
    a, b = pair
    b.addresses.insert(0, "198.51.100.8")  # what the routes would choose
    connected(world, a, b)

    assert a.peer().endpoint[0] == "192.0.2.2"
    assert not [report for report in a.reported if isinstance(report, link.Moved)]


def test_a_replayed_datagram_moves_nobody(world, pair):
    a, b = pair
    connected(world, a, b)
    recorded = []
    world.network.lose = lambda flight: recorded.append(flight) or False
    a.send(b)
    world.run(1)
    data = next(flight for flight in recorded if flight.kind == "data")
    endpoint = b.peer().endpoint

    world.network.send(Flight(("198.51.100.66", 6), data.destination, data.datagram))
    world.run(1)

    assert b.drops["replay"] == 1
    assert b.peer().endpoint == endpoint
    assert len(b.received) == 1


def test_a_spoofed_source_is_dropped_but_the_endpoint_follows(world, pair):
    a, b = pair
    connected(world, a, b)
    a.addresses = ["198.51.100.7"]
    a.tell(link.RenewSources())
    a.send(b, source="10.244.99.1")
    b_before = dict(b.drops)

    world.run(1)

    assert b.received == []
    assert (b_before, b.drops["source"]) == ({}, 1)
    assert b.peer().endpoint[0] == "198.51.100.7"


def test_a_more_specific_prefix_of_another_peer_makes_a_source_spoofed(world, pair):
    a, b = pair
    c = world.node("c")
    b.know(c)
    connected(world, a, b)
    b.route([(f"{a.inner()}/32", 2)])
    a.send(b)

    world.run(1)

    assert b.received == []
    assert b.drops["source"] == 1


def test_a_nat_with_short_mappings_is_held_open_by_keepalives(world):
    a, b = world.node("a"), world.node("b")
    world.network.nats[a.addresses[0]] = Nat("203.0.113.1", timeout=2.0)
    a.know(b, keepalive=1.0)
    b.know(a, endpoint=None)
    world.run(3)
    sent = []
    for _ in range(20):
        sent += b.send(a)
        world.run(7)

    assert a.received == sent
    assert b.peer().endpoint == ("203.0.113.1", 40_001)


def test_without_keepalives_a_nat_forgets(world):
    a, b = world.node("a"), world.node("b")
    world.network.nats[a.addresses[0]] = Nat("203.0.113.1", timeout=2.0)
    a.know(b)
    b.know(a, endpoint=None)
    a.send(b)
    world.run(30)
    b.send(a)
    world.run(1)
    assert a.received == []

    sent = a.send(b)
    world.run(1)

    assert b.received[-1:] == sent  # and it is reachable again at its new port
    assert b.peer().endpoint == ("203.0.113.1", 40_002 + 1)
