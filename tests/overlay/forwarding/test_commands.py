"""The forwarder's handling of the agent's messages; test_core.py and test_loop.py test it as a whole."""

from __future__ import annotations

import errno

from overlay.link import messages as link
from overlay.session.constants import GREETINGS_PER_SECOND
from overlay.session.outputs import Transmit
from tests.sim import World


def test_each_packet_for_a_peer_without_an_address_is_counted():
    world = World()
    a, b = world.node("a"), world.node("b")
    a.know(b, endpoint=False)

    a.send(b, 3)
    world.run(1)

    assert a.peer().drops == {"no_endpoint": 3}


def test_an_answer_to_a_caller_that_is_not_known_any_more_is_dropped_and_counted():
    world = World()
    a, _ = world.pair()
    before = len(world.network.sent)

    for _ in range(2):
        a.tell(Transmit(1, bytes(92), ("192.0.2.99", 9)))
    world.run(1)

    assert a.peer().drops == {"no_endpoint": 2}
    assert a.peer().traffic.tx_bytes == 0
    assert len(world.network.sent) == before


def test_a_first_keepalive_waits_for_its_turn_only_if_it_takes_a_handshake():
    """Thousands of peers are not called at once; those that have a session have been called."""
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(100)
    others = 2 * GREETINGS_PER_SECOND
    for number in range(2, 2 + others):
        a.tell(link.SetPeer(number, 0.0))
        a.tell(link.SetPeer(number, 25.0))
    since = world.clock.now

    a.tell(link.SetPeer(1, 25.0))
    world.run(0.5)  # a quarter of what the others take

    assert world.sent("keepalive", by="a", since=since)


def test_first_keepalives_that_take_a_handshake_are_spread():
    world = World()
    a = world.node("a")
    others = 2 * GREETINGS_PER_SECOND
    for number in range(1, 1 + others):
        a.tell(link.SetPeer(number, 25.0))

    world.run(0.5)
    early = len(a.reported)
    world.run(2)

    assert early <= others // 4 + 1
    assert a.reported[others - 1] == link.SessionWanted(others, is_idle=True)


def test_a_host_that_has_moved_tells_those_with_a_session():
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    since = world.clock.now

    a.tell(link.RenewSources(has_moved=True))
    world.run(0.1)

    assert len(world.sent("keepalive", by="a", since=since)) == 1


def test_a_ping_of_a_peer_without_a_session_is_answered_with_nothing():
    world = World()
    a, _ = world.pair()
    a.reported.clear()

    a.tell(link.PingPeer(1, 7))
    a.tell(link.PingPeer(9, 8))
    world.run(0)

    assert a.reported == [link.Ponged(1, 7, None), link.Ponged(9, 8, None)]


def test_a_tun_knows_no_stations():
    world = World()
    a, _ = world.pair()
    a.reported.clear()

    a.tell(link.AskStation(7, mac=bytes([2, 0, 0, 0, 0, 1])))
    a.tell(link.AskStation(8, address=bytes(4)))
    world.run(0)

    assert a.reported == [link.Station(7, bytes([2, 0, 0, 0, 0, 1])), link.Station(8)]


def test_what_is_held_for_a_peer_that_is_removed_does_not_leave():
    world = World()
    a, b = world.pair()
    a.send(b)
    b.send(a)
    world.run(1)
    sent = len(world.network.sent)
    for udp in a.sockets:
        udp.errors.extend([errno.EAGAIN] * 50)
    a.send(b, 3)
    a.turn()
    assert a.core.sender.is_holding

    a.tell(link.RemovePeer(1))
    for udp in a.sockets:
        udp.errors.clear()
    world.run(1)

    assert not a.core.sender.is_holding
    assert len(world.network.sent) == sent


def test_a_peer_that_answers_after_it_was_given_up_is_no_longer_unreachable():
    world = World()
    a, b = world.pair()
    world.network.lose = lambda _: True
    a.send(b)
    world.run(120)
    world.network.lose = lambda _: False
    a.send(b)
    world.run(200)  # the session came and went
    a.tun.received.clear()
    sent = a.send(b, 3)
    world.run(1)

    assert b.received[-3:] == sent
    assert a.tun.received == []


def test_a_keepalive_that_is_switched_off_takes_nobody_s_turn():
    world = World()
    a = world.node("a")
    others = GREETINGS_PER_SECOND
    for number in range(1, 1 + others):
        a.tell(link.SetPeer(number, 25.0))
        a.tell(link.SetPeer(number, 0.0))
    a.tell(link.SetPeer(1 + others, 25.0))

    world.run(1.1)  # the others had a second

    assert link.SessionWanted(1 + others, is_idle=True) in a.reported


def test_what_agents_say_is_for_encrypted_peers_whose_endpoint_is_known():
    world = World()
    a, b, c, d = (world.node(name) for name in "abcd")
    numbers = [a.know(b, endpoint=False), a.know(c), a.know_in_the_clear(d)]

    a.tell(link.SendControl([*numbers, 9], b"\x92"))
    world.run(0)

    assert a.reported == [link.SessionWanted(numbers[1], is_idle=True)]
    assert [who for _, who, kind, _ in world.network.sent if kind == "unknown"] == []
