"""Stations that move, or whose address is forged, between three nodes: they are soon reachable again."""

from __future__ import annotations

import pytest

from overlay.forwarding.ethernet.bridge import FRESH_TIME
from overlay.forwarding.ethernet.outbound import FLOODED_AT_ONCE
from tests import packets
from tests.overlay.forwarding.ethernet.test_bridge import EVERYBODY, arp, mac
from tests.sim import World

STATION, ASKER = mac(50), mac(51)
ADDRESS, OTHER = "10.9.9.50", "10.9.9.51"
ANNOUNCEMENT = arp(STATION, ADDRESS, ADDRESS)[12:]


@pytest.fixture
def nodes():
    """Return three nodes; the station is behind the first, and talks with one behind the third."""
    world = World(is_tap=True)
    nodes = [world.node(name) for name in "abc"]
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.know(other, macs=[other.mac], addresses=[other.inner(), other.inner(6)])
    for node in nodes:
        node.send_frame(EVERYBODY, packets.udp(b"hello"))
        world.run(1)
    home, _, far = nodes
    home.send_frame(EVERYBODY, ANNOUNCEMENT, source=STATION)
    far.send_frame(EVERYBODY, arp(ASKER, OTHER, OTHER)[12:], source=ASKER)
    world.run(1)
    assert reaches(nodes, home)
    return nodes


def reaches(nodes, place):
    """Return whether a packet to the station, which does not answer, arrives at *place* and nowhere else."""
    frame = nodes[2].send_frame(STATION, packets.udp(b"data"), source=ASKER)
    for node in nodes:
        node.received.clear()
    nodes[2].world.run(0.1)
    return [node for node in nodes if frame in node.received] == [place]


def ask(nodes, home):
    """Let the asker ask who has the address; the station answers where the question arrives at its *home*."""
    for node in nodes:
        node.received.clear()
    question = nodes[2].send_frame(EVERYBODY, arp(ASKER, OTHER, ADDRESS)[12:], source=ASKER)
    nodes[2].world.run(0.1)
    if question in home.received:
        reply = arp(STATION, ADDRESS, OTHER, destination=ASKER, operation=2, target_mac=ASKER)
        home.send_frame(ASKER, reply[12:], source=STATION)
        nodes[2].world.run(0.1)


def test_a_silent_station_whose_address_was_forged_is_found_by_the_first_question(nodes):
    home, forger, _ = nodes
    home.world.run(10)
    forger.send_frame(EVERYBODY, ANNOUNCEMENT, source=STATION)
    home.world.run(1)
    assert reaches(nodes, forger)

    ask(nodes, home)

    assert reaches(nodes, home)


def test_a_forger_that_goes_on_holds_no_station_away_for_good(nodes):
    home, forger, _ = nodes
    for _ in range(4):
        home.world.run(20)
        forger.send_frame(EVERYBODY, ANNOUNCEMENT, source=STATION)
        home.world.run(1)

        ask(nodes, home)

        assert reaches(nodes, home)


def test_a_station_that_moved_back_unheard_is_found_once_it_was_silent_for_a_while(nodes):
    """Before, its announcement was lost, and for minutes those who asked for it were given its former place."""
    home, away, _ = nodes
    home.world.run(400)  # what the first place knew is forgotten
    away.send_frame(EVERYBODY, ANNOUNCEMENT, source=STATION)
    home.world.run(1)
    assert reaches(nodes, away)
    home.world.run(FRESH_TIME)

    ask(nodes, home)

    assert reaches(nodes, home)


@pytest.mark.slow
def test_a_station_that_moves_in_a_storm_of_other_frames_is_heard(nodes):
    home, away, _ = nodes
    home.world.run(10)
    for _ in range(int(FLOODED_AT_ONCE) // 2 + 100):
        away.send_frame(EVERYBODY, packets.udp(b"storm"))
    away.send_frame(EVERYBODY, ANNOUNCEMENT, source=STATION)
    home.world.run(1)

    assert away.drops["flood"]
    assert reaches(nodes, away)
