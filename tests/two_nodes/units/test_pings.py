"""In-band pings."""

from __future__ import annotations

import pytest

from overlay.forwarding.bulk.capability import Bulk
from overlay.forwarding.pings import PONGS_AT_ONCE
from overlay.link.messages import PINGS_WAITING, PingPeer, Ponged, SessionWanted
from overlay.wire import control
from tests.two_nodes.units.streams import BOTH, RTT, Stream, connected, forget, kinds

PING = 32 + len(control.build(control.Ping(2**63)))


def ping(world, node, number=1, count=1):
    """Ping peer *number*, with what is told of it in a second."""
    node.reported.clear()
    for identifier in range(count):
        node.tell(PingPeer(number, identifier))
    world.run(1)
    return [each for each in node.reported if isinstance(each, Ponged)]


def reported(node, kind):
    return [each for each in node.reported if isinstance(each, kind)]


def test_a_ping_tells_the_round_trip(world, pair):
    a, b = pair
    connected(world, a, b)

    told = ping(world, a)

    assert told == [Ponged(1, 0, pytest.approx(RTT))]
    assert [size for *_, size in world.network.sent] == [PING, PING]
    assert a.received == b.received == []
    assert a.drops == b.drops == {}


def test_both_ends_may_ping(world, pair):
    a, b = pair
    connected(world, a, b)

    assert ping(world, a) == ping(world, b) == [Ponged(1, 0, pytest.approx(RTT))]


@pytest.mark.parametrize("side", ["ping", "pong"])
def test_a_ping_that_is_lost_is_told_of_no_more(world, pair, side):
    a, b = pair
    connected(world, a, b)
    loser = a if side == "ping" else b
    world.network.lose = lambda flight: flight.source[0] in loser.addresses

    assert ping(world, a) == []

    world.network.lose = lambda flight: False
    assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]
    assert a.drops == b.drops == {}


def test_a_peer_that_has_said_no_hello_is_not_pinged(world, pair):
    a, b = pair
    a.send(b)
    world.run(1)
    forget(a, b)

    assert ping(world, a) == [Ponged(1, 0, None)]
    assert world.network.sent == []


def test_a_plain_peer_never_gets_a_ping(world):
    a = world.node("a")
    world.ciphers = []
    b = world.node("b")
    a.know(b)
    b.know(a)
    Stream(world, a, b).go_on(10, every=0.1)
    forget(a, b)

    assert ping(world, a) == [Ponged(1, 0, None)]
    assert "data" not in kinds(world, "a")
    assert b.drops == {"inner_version": 3}  # the hellos that super-packets triggered


def test_an_end_without_units_pings_nobody(world):
    b = world.node("b")
    world.ciphers = []
    a = world.node("a")
    a.know(b)
    b.know(a)
    Stream(world, b, a).go_on(0.2)

    assert ping(world, a) == [Ponged(1, 0, None)]


def test_a_version_without_pings_is_not_pinged(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    older = control.Hello(tuple(BOTH), 65_555, 255, 1420, is_answer=True)

    keypair.bulk = Bulk([], BOTH, keypair.remote_index, 1420)
    keypair.bulk.take_hello(older, world.clock.now)

    assert ping(world, a) == [Ponged(1, 0, None)]
    assert world.network.sent == []


@pytest.mark.parametrize("message", [b"\x92\x0f\x80", b"\x92\x0f\x81\xa2id\x07", b"\x80"])
def test_a_version_that_does_not_know_a_message_ignores_it(world, pair, message):
    a, b = pair
    connected(world, a, b)
    world.run(5)  # what was sent until now is probed for once more
    forget(a, b)

    a.core.outbound.send_payload(a.peer(), a.peer().keypairs.current, message + bytes(-len(message) % 16))
    world.run(60)

    assert kinds(world, "b") == {}
    assert b.drops == {}


def test_nobody_is_pinged_who_is_no_peer(world, pair):
    a, _ = pair

    assert ping(world, a, number=7) == [Ponged(7, 0, None)]


def test_what_was_said_under_one_keypair_holds_for_no_other(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(6)  # a handshake too soon after another is not started
    a.want(1)
    world.run(1)
    assert len(world.sent("initiation")) == 1

    assert ping(world, a) == [Ponged(1, 0, None)]


def test_a_peer_that_began_anew_is_not_pinged_before_it_says_hello(world, pair):
    a, b = pair
    connected(world, a, b)
    b.restart()
    b.want(1)
    world.run(1)

    assert ping(world, a) == [Ponged(1, 0, None)]

    connected(world, a, b)
    assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]


def test_a_pong_starts_no_timer_at_either_end(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(15)  # what the transfer had pending has been sent
    forget(a, b)

    ping(world, a)
    world.run(100)

    assert [size for *_, size in world.network.sent] == [PING, PING]


def test_neither_pings_nor_pongs_keep_the_keys_of_the_answering_end_alive(world, pair):
    a, b = pair
    connected(world, b, a)  # b is the initiator, which renews keys
    assert b.peer().keypairs.current.is_initiator
    world.run(15)
    forget(a, b)

    for _ in range(30):
        assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]
        world.run(3)
    b.reported.clear()
    world.run(100)

    assert reported(b, SessionWanted) == []


def test_a_ping_under_old_keys_asks_for_new_ones_and_a_pong_does_not(world, pair):
    a, b = pair
    connected(world, a, b)
    assert a.peer().keypairs.current.is_initiator
    world.run(130)
    a.reported.clear()
    b.reported.clear()

    a.tell(PingPeer(1, 0))

    world.run(1)
    assert len(reported(a, SessionWanted)) == 1
    assert reported(b, SessionWanted) == []
    assert world.sent("initiation", "a")


def test_pings_that_nobody_answers_lead_to_a_handshake(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(15)
    world.network.lose = lambda flight: flight.source[0] in b.addresses
    forget(a, b)

    ping(world, a)
    assert world.sent("initiation") == []
    world.run(16)

    assert world.sent("initiation", "a")


def test_a_flood_of_pings_is_answered_in_part(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current

    for identifier in range(500):
        a.core.outbound.send_payload(a.peer(), keypair, control.build(control.Ping(identifier)))
    world.run(1)

    answered = kinds(world, "b")["data"]
    assert PONGS_AT_ONCE <= answered < 100
    assert b.drops["ping_rate"] + b.drops["control_rate"] == 500 - answered
    assert a.drops == {"pong_unexpected": answered}
    assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]


def test_pings_that_wait_are_bounded(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: flight.source[0] in b.addresses

    ping(world, a, count=PINGS_WAITING * 3)

    assert len(a.core.in_band.pings._sent) == PINGS_WAITING


def test_pings_go_on_in_the_middle_of_a_transfer(world, pair):
    a, b = pair
    stream = Stream(world, a, b)
    stream.go_on(0.5)
    a.reported.clear()

    for identifier in range(20):
        a.tell(PingPeer(1, identifier))
        stream.go_on(0.05)
    world.run(1)

    assert [each.seconds for each in reported(a, Ponged)] == [pytest.approx(RTT, abs=0.011)] * 20
    assert b.received == stream.sent
