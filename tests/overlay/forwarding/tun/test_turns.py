"""Who is dropped early when more arrives than can be taken."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address

import pytest

from overlay.forwarding import native
from overlay.forwarding.tun.turns import ALLOWED, COMPANY, ELSEWHERE, TURN, Turns
from overlay.forwarding.underlay.crowding import PATIENCE, Crowding
from overlay.reasons import Drops
from tests.sim import World

NOW = 1000.0
FLOOD, OTHER = 1, 2


@pytest.fixture
def pressed():
    made = Crowding()
    made.is_pressed = True
    return made


def test_who_sends_more_than_the_average_is_dropped_and_others_are_not(pressed):
    turns = Turns(Drops())
    turns.admits(pressed, OTHER, 1, NOW)
    taken = {FLOOD: 0, OTHER: 0}
    for number in range(1000):
        taken[FLOOD] += turns.admits(pressed, FLOOD, 1, NOW)
        if number % 5 == 0:
            taken[OTHER] += turns.admits(pressed, OTHER, 1, NOW)

    assert taken == {FLOOD: ALLOWED, OTHER: 200}
    assert turns.admits(pressed, FLOOD, 1, NOW + TURN), "in the next turn it is a peer like others"


@pytest.mark.parametrize(("after", "taken"), [(COMPANY / 2, ALLOWED), (COMPANY, 1000)])
def test_peer_that_has_been_alone_for_a_while_delays_nobody_and_is_not_dropped(pressed, after, taken):
    turns = Turns(Drops())
    for peer in (OTHER, FLOOD):
        turns.admits(pressed, peer, 1, NOW)

    assert sum(turns.admits(pressed, FLOOD, 1, NOW + after) for _ in range(1000)) == taken


def test_the_only_peer_is_not_dropped(pressed):
    turns = Turns(Drops())

    assert all(turns.admits(pressed, FLOOD, 1, NOW) for _ in range(1000))


def test_what_is_forged_from_elsewhere_neither_ends_that_a_peer_is_alone_nor_is_alone_itself(pressed):
    turns = Turns(Drops())
    taken = {FLOOD: 0, ELSEWHERE: 0}
    for _ in range(1000):
        for each in taken:
            taken[each] += turns.admits(pressed, each, 1, NOW)

    assert taken == {FLOOD: 1000, ELSEWHERE: ALLOWED}


def test_nobody_is_dropped_while_there_is_no_pressure():
    turns = Turns(Drops())

    assert all(turns.admits(Crowding(), FLOOD, 1, NOW) for _ in range(1000))


def crowded(is_compiled, forger=None, *, lanes=1, raw=None, **how):
    """Return what came of a flood from one peer at a node with a full queue, in which a few packets of another wait.

    With a *forger*, the flood only has the number of the peer's session, and comes from that address.  Lanes other than
    the first take two datagrams when a turn begins.
    """
    world = World(has_gro=raw is not None, is_compiled=is_compiled, lanes=lanes)
    flooding, node, quiet = (world.node(name) for name in "abc")
    for each in (flooding, quiet):
        for one, other in ((each, node), (node, each)):
            if raw is not None:
                one.know_raw(other, raw)
            else:
                (one.know_in_the_clear if how else one.know)(other, **how)
        each.send(node)
        world.run(1)
    node.received.clear()
    flooding.send(node, 1500, 60)
    quiet.send(node, 30, 60)
    flooding.turn(), quiet.turn()
    world.clock.advance(1)
    world.network.deliver()
    (udp,) = (each for each in node.core.sender.sockets if each.raw.inbox)
    socket = udp.raw
    waiting, socket.arrived = list(socket.inbox), 100_000_000
    if forger is not None:
        for at, each in enumerate(waiting[:1500]):
            forged = each.datagram[:-1] + bytes([each.datagram[-1] ^ 1])
            waiting[at] = dataclasses.replace(each, source=forger, datagram=forged)
    socket.inbox.clear()
    for number in range(30):
        socket.inbox += [*waiting[number * 50 : number * 50 + 50], waiting[1500 + number]]
    udp.pace.took(2)
    turn = None
    while node.core.inbound.drain(udp, world.clock.now):
        world.clock.advance(PATIENCE / 4)
        now, before, turn = world.clock.now, turn, int(world.clock.now / TURN)
        for each in node.lanes if turn != before else ():
            each.settle()
            each.lane.drain_udp(udp, now, 100)
    drops = [dict(each) for each in (node.core.drops, *(peer.drops for peer in node.core.peers.values()))]
    return drops, node.received, quiet.inner()


@pytest.mark.parametrize(
    "how",
    [{}, {"encapsulation": "udp"}, {"raw": "ipip"}, {"raw": "gre"}],
    ids=["sealed", "in the clear", "ipip", "gre"],
)
def test_flood_of_one_peer_is_dropped_early_and_another_is_heard(how):
    outcomes = [crowded(is_compiled, **how) for is_compiled in ((False, True) if native.core else (False,))]

    (nobody, flood, other), received, quiet = outcomes[0]
    assert flood["crowded"] > 300
    assert nobody == {}
    assert other == {}
    assert sum(ip_address(packet[12:16]) == ip_address(quiet) for packet in received) == 30
    assert len(received) == 1530 - flood["crowded"]
    assert outcomes[1:] in ([], outcomes[:1])


@pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")
def test_each_lane_compares_what_came_to_it():
    """Before, a peer that another lane had heard in the turn was not counted, so the flood passed."""
    (_, flood, other), received, quiet = crowded(is_compiled=True, lanes=2)

    assert flood["crowded"] > 500
    assert other == {}
    assert sum(ip_address(packet[12:16]) == ip_address(quiet) for packet in received) == 30


def test_flood_forged_from_elsewhere_is_dropped_early_and_costs_the_peer_nothing():
    elsewhere = ("192.0.2.77", 51820)
    outcomes = [
        crowded(is_compiled, elsewhere) for is_compiled in ((False, True) if native.core else (False,))
    ]

    (nobody, *peers), received, quiet = outcomes[0]
    assert nobody["crowded"] > 300
    assert peers == [{"transport_auth": 1500 - nobody["crowded"]}, {}]
    assert sum(ip_address(packet[12:16]) == ip_address(quiet) for packet in received) == 30
    assert outcomes[1:] in ([], outcomes[:1])
