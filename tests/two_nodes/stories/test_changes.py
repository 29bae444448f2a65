"""Many peers, and changes while packets flow."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.link import messages as link
from overlay.session.constants import GREETINGS_PER_SECOND
from overlay.session.outputs import Completed, InstallKeypair
from tests.sim import World
from tests.two_nodes.stories.talking import connected, keep_talking


def test_fifty_peers_talk_to_one(world):
    hub = world.node("hub")
    spokes = [world.node(f"spoke {number}") for number in range(50)]
    for spoke in spokes:
        spoke.know(hub)
        hub.know(spoke, endpoint=None)
    to_hub = [packet for spoke in spokes for packet in spoke.send(hub, 3)]
    world.run(1)
    to_spokes = [hub.send(spoke, 3) for spoke in spokes]

    world.run(1)

    assert sorted(hub.received) == sorted(to_hub)
    assert [spoke.received for spoke in spokes] == to_spokes


def test_routes_that_change_in_mid_traffic_lose_nothing(world, pair):
    a, b = pair
    connected(world, a, b)
    to_a, to_b = [], []
    for number in range(100):
        extra = [(f"10.{number}.{n}.0/24", 1) for n in range(50)]
        a.route(extra, is_last=False)
        one, other = keep_talking(world, a, b, 0.2, 0.1)
        a.route([], [prefix for prefix, _ in extra[:25]])
        to_a, to_b = to_a + one, to_b + other

    assert (a.received, b.received) == (to_a, to_b)
    assert a.core.table.find(ip_address("10.7.30.1").packed) is a.peer()
    assert a.core.table.find(ip_address("10.7.3.1").packed) is None


def test_a_prefix_moves_from_one_peer_to_another(world, pair):
    a, b = pair
    c = world.node("c")
    a.know(c)
    c.know(a)
    c.subnets, kept = [*b.subnets], c.subnets
    connected(world, a, b)
    a.route([(subnet, 2) for subnet in b.subnets])
    sent = a.send(b)

    world.run(1)

    assert kept
    assert (b.received, c.received) == ([], sent)


def test_a_peer_learns_of_a_new_port_at_once(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(30)  # nothing is pending
    a.port = 51999
    a.open_sockets()
    world.run(20)  # the old sockets are gone
    sent = b.send(a)

    world.run(1)

    assert a.received == sent
    assert b.peer().endpoint == (a.addresses[0], 51999)


@pytest.mark.parametrize("port", [51820, 51999], ids=["same port", "new port"])
def test_new_sockets_in_mid_traffic_lose_nothing(world, pair, port):
    a, b = pair
    connected(world, a, b)
    to_a, to_b = keep_talking(world, a, b, 3, 0.005)
    old = list(a.sockets)
    to_b += a.send(b)
    a.port = port
    a.open_sockets()
    more_to_a, more_to_b = keep_talking(world, a, b, 15, 0.1)

    assert a.received == to_a + more_to_a
    assert b.received == to_b + more_to_b
    assert b.peer().endpoint == (a.addresses[0], port)
    assert all(each.is_closed for each in old)
    assert len(a.sockets) == 2


def test_a_removed_peer_is_forgotten_with_all_its_keys(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send(b)
    a.tell(link.RemovePeer(1))

    world.run(1)

    assert a.core.by_index == {}
    assert b.received == []
    assert a.drops == {"no_peer": 1}


def test_byte_counters_are_those_of_the_checklist(world, pair):
    a, b = pair
    for number in range(10):  # ten echo requests of 84 bytes and their replies
        b.send(a, size=56, identifier=number)
        world.run(0.1)
        a.send(b, size=56, identifier=number)
        world.run(0.1)
    a.tell(link.AskCounters(5))
    b.tell(link.AskCounters(6))
    world.run(0)

    (of_a,), (of_b,) = (
        [counters.peers[0] for counters in node.reported if isinstance(counters, link.Counters)]
        for node in (a, b)
    )

    assert (of_b.rx_bytes, of_b.tx_bytes) == (1372, 1428)
    assert (of_a.rx_bytes, of_a.tx_bytes) == (1428, 1372)
    assert (of_b.rx_packets, of_b.tx_packets) == (10, 10)


def test_a_completed_handshake_is_told_once_on_each_side(world, pair):
    a, b = pair

    connected(world, a, b)

    assert [completed.is_initiator for completed in a.logged(Completed)] == [True]
    assert [completed.is_initiator for completed in b.logged(Completed)] == [False]
    assert [type(report) for report in b.reported if not isinstance(report, link.Handshake)] == [
        link.Confirmed
    ]
    assert not a.logged(InstallKeypair)


@pytest.mark.slow
def test_first_keepalives_of_many_peers_are_paced_and_their_answers_are_no_load():
    world = World()
    hub = world.node("hub")
    spokes = [world.node(f"spoke {number}") for number in range(100)]
    for spoke in spokes:
        hub.know(spoke, keepalive=25.0)
        spoke.know(hub, endpoint=False)

    world.run(0.1)
    early = len(world.sent("initiation"))
    world.run(2)

    assert early <= 0.1 * GREETINGS_PER_SECOND + 1
    assert len(world.sent("initiation")) == 100
    assert world.sent("cookie") == []
    assert len(hub.logged(Completed)) == 100


@pytest.mark.slow
def test_a_forwarder_that_begins_anew_greets_a_crowd_that_answers_slowly_without_cookies():
    world = World()
    hub = world.node("hub")
    spokes = [world.node(f"spoke {number}") for number in range(100)]
    for spoke in spokes:
        hub.know(spoke)
        spoke.know(hub, endpoint=False)
    for number in range(100):
        hub.want(number + 1)
    hub.is_agent_busy = True  # while all answers arrive
    world.run(1)
    hub.is_agent_busy = False
    stranger = world.node("stranger")
    hub.know(stranger)
    stranger.know(hub)
    sent = stranger.send(hub)
    world.run(1)

    assert hub.received == sent
    assert len(hub.logged(Completed)) == 101
    assert world.sent("cookie") == []


def change_key(node, key):
    """Let *node* have the private key *key*, as its agent does."""
    node.key = key
    for command in node.engine.change_key(key):
        node.tell(command)


def test_new_private_key_needs_no_waiting_for_timers(world, pair):
    a, b = pair
    connected(world, a, b)
    key = PrivateKey(bytes(range(32)))

    change_key(a, key)
    b.engine.sessions.remove_peer(1)
    b.engine.sessions.add_peer(1, key.public)
    b.tell(link.RemovePeer(1))
    b._tell_peer(1)
    world.run(0.5)
    to_a, to_b = keep_talking(world, a, b, 1, 0.1)

    assert (a.received[-len(to_a) :], b.received[-len(to_b) :]) == (to_a, to_b)


def test_after_another_key_nothing_under_the_former_is_taken(world, pair):
    a, b = pair
    connected(world, a, b)
    change_key(a, PrivateKey(bytes(range(32))))
    before = len(a.received)

    b.send(a, 3)
    world.run(30)

    assert len(a.received) == before
    assert not a.core.by_index
    assert a.drops["mac1"] + a.engine.refusals.counts["mac1"] > 0  # b calls those that it knows
