"""What two nodes (and more) do together: the best place to see how the whole behaves."""

from __future__ import annotations

import errno
import math
import random
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.keys import PrivateKey
from overlay.engine import LookUp
from overlay.forwarding.keypair import GOES_OVER_WITHIN
from overlay.link import messages as link
from overlay.session.constants import GREETINGS_PER_SECOND
from overlay.session.outputs import Completed, GiveUp, InstallKeypair
from overlay.session.sessions import Sessions
from overlay.status import state_of
from overlay.wire.icmp import Echo
from tests import packets
from tests.hypothesis_profiles import examples, seeds
from tests.network import Flight, Nat
from tests.overlay.session.pair import seeded
from tests.packets import ACK, CWR, ECE, PSH
from tests.sim import World

RTT = 0.02


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def world(request):
    world = World(has_gro=request.param)
    yield world
    print(world.trace)  # noqa: T201  pytest shows it for a test that failed


@pytest.fixture
def pair(world):
    return world.pair()


def connected(world, a, b):
    """Let *a* and *b* shake hands and use the session both ways; forget the packets."""
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(1)
    assert len(a.received) == len(b.received) == 1
    a.received.clear()
    b.received.clear()


def keep_talking(world, a, b, seconds, step=1.0):
    """Send one packet each way every *step* seconds; return what each must have received."""
    to_a, to_b = [], []
    for _ in range(int(seconds / step)):
        to_b += a.send(b)
        to_a += b.send(a)
        world.run(step)
    return to_a, to_b


def keypair_age(world, node, number=1):
    return world.clock.now - node.peer(number).keypairs.current.created


# The first packet


def test_a_packet_arrives(world, pair):
    a, b = pair
    sent = a.send(b)

    world.run(1)

    assert b.received == sent


def test_a_ping_is_answered(world, pair):
    a, b = pair
    there, back = ip_address(b.inner()), ip_address(a.inner())
    request = Echo(is_reply=False, identifier=7, sequence=1, data=b"hello").build(back, there)
    a.tun.outgoing.append(packets.PLAIN + packets.ipv4(request, str(back), str(there), protocol=1))
    world.run(1)
    (heard,) = b.received
    reply = Echo(is_reply=True, identifier=7, sequence=1, data=Echo.parse(heard[20:], 4).data).build(
        there, back
    )

    b.tun.outgoing.append(packets.PLAIN + packets.ipv4(reply, str(there), str(back), protocol=1))
    world.run(1)

    assert Echo.parse(a.received[0][20:], 4) == Echo(is_reply=True, identifier=7, sequence=1, data=b"hello")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", [0, 1], ids=["over IPv4", "over IPv6"])
def test_both_families_go_inside_both(world, version, outer):
    a, b = world.node("a"), world.node("b")
    endpoint = (b.addresses[0], b.port) if outer == 0 else (b.addresses[1], b.port, 0, 0)
    a.know(b, endpoint=endpoint)
    b.know(a, endpoint=None)
    there = a.send(b, 3, version=version)
    world.run(1)
    back = b.send(a, 3, version=version)

    world.run(1)

    assert (a.received, b.received) == (back, there)


def test_a_preshared_key_on_both_sides_connects(world):
    a, b = world.pair(psk=b"p" * 32)

    connected(world, a, b)


def test_the_first_packet_makes_the_handshake_and_is_sent_right_after(world, pair):
    a, b = pair
    start = world.clock.now
    a.send(b)

    world.run(1)

    assert [what for _, _, what, _ in world.network.sent][:3] == ["initiation", "response", "data"]
    assert world.sent("data") == [pytest.approx(start + RTT)]


def test_what_was_staged_goes_out_in_order(world, pair):
    a, b = pair
    sent = [packet for size in (60, 1000, 60, 300, 1380) for packet in a.send(b, 20, size)]

    world.run(1)

    assert b.received == sent


def test_an_initiator_without_packets_confirms_with_a_keepalive(world, pair):
    a, b = pair
    a.want(1)

    world.run(1)

    assert len(world.sent("keepalive", "a")) == 1
    assert b.peer().keypairs.next is None
    assert b.peer().keypairs.current is not None


def test_a_responder_does_not_send_before_it_has_received(world, pair):
    a, b = pair
    world.network.lose = lambda flight: flight.kind == "response"
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(2)

    assert b.peer().keypairs.next is not None
    assert world.sent("data") + world.sent("keepalive") == []


def test_both_ends_may_begin_at_once(world, pair):
    a, b = pair
    to_b, to_a = a.send(b, 5), b.send(a, 5)
    world.run(1)
    to_b += a.send(b, 5)
    to_a += b.send(a, 5)

    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)
    assert len(world.sent("initiation")) == 2


@pytest.mark.parametrize("seed", seeds(6))
def test_of_handshakes_that_crossed_one_is_kept_and_renewed_by_one_end(seed):
    world = World(seed)
    a, b = world.pair()

    to_a, to_b = keep_talking(world, a, b, 400)

    assert (a.received, b.received) == (to_a, to_b)
    assert len(world.sent("initiation")) == 2 + 3


@pytest.mark.parametrize("seed", seeds(4))
def test_handshakes_that_cross_leave_one_keypair_in_use_that_is_renewed_in_time(seed):
    world = World(seed)
    a, b = world.pair()
    a.want(1)
    b.want(1)
    world.run(1)

    to_a, to_b = keep_talking(world, a, b, 170)

    assert (a.received, b.received) == (to_a, to_b)
    assert {a.peer().keypairs.current.is_initiator, b.peer().keypairs.current.is_initiator} == {True, False}
    assert keypair_age(world, a) < 60


def crossing(seed, reorder):
    """Return a world and its two nodes after handshakes at nearly the same time, with agents slow now and then."""
    chance = random.Random(seed)
    world = World(seed)
    a, b = world.pair()
    if chance.random() < 0.5:
        connected(world, a, b)
        world.run(6)
    world.network.delay, world.network.reorder = chance.choice([0.001, 0.01]), reorder
    events = [(chance.random() * 0.03, node, "want") for node in (a, b)]
    events += [
        (chance.random() * 0.06, node, "pause") for node in (a, b) for _ in range(chance.choice([0, 2, 4]))
    ]
    events += [
        (chance.random() * 0.06, node, "send") for node in (a, b) for _ in range(chance.choice([0, 2]))
    ]
    at = 0.0
    for when, node, what in sorted(events, key=lambda event: event[0]):
        world.run(when - at)
        at = when
        if what == "want":
            node.want(1)
        elif what == "pause":
            node.is_agent_busy = not node.is_agent_busy
        else:
            node.send(b if node is a else a)
    world.run(0.001)
    a.is_agent_busy = b.is_agent_busy = False
    for _ in range(10):
        a.send(b)
        b.send(a)
        world.run(0.02)
    world.run(1)
    a.received.clear()
    b.received.clear()
    to_b, to_a = a.send(b), b.send(a)
    world.run(1)
    assert (a.received, b.received) == (to_a, to_b)
    return world, a, b


def use_one_keypair(a, b):
    """Return whether both nodes send with the keypair of one handshake."""
    one, other = a.peer().keypairs.current, b.peer().keypairs.current
    return (one.local_index, one.remote_index) == (other.remote_index, other.local_index)


@examples(200)
@given(st.integers(0, 2**32))
def test_both_ends_use_one_keypair_after_handshakes_at_the_same_time_whatever_was_slow(seed):
    """A keepalive that came before the answer was taken left each end with a keypair of its own."""
    _, a, b = crossing(seed, 0.0)

    assert use_one_keypair(a, b)


@examples(200)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 1.0]))
def test_both_ends_use_one_keypair_some_seconds_after_handshakes_whose_messages_come_in_any_order(
    seed, reorder
):
    """Each end went on with its own when an answer overtook an initiation, and the twin had neither for ordinary."""
    world, a, b = crossing(seed, reorder)
    assert a.peer().keypairs.current.is_initiator or b.peer().keypairs.current.is_initiator

    to_a, to_b = keep_talking(world, a, b, GOES_OVER_WITHIN + 2)

    assert (a.received[1:], b.received[1:]) == (to_a, to_b)
    assert use_one_keypair(a, b)


def test_a_packet_for_nobody_is_answered_with_unreachable(world, pair):
    a, b = pair
    (packet,) = a.send(b, destination="203.0.113.9")

    world.run(1)

    (error,) = a.received
    assert (error[9], error[20], error[21]) == (1, 3, 1)
    assert error[28:] == packet
    assert a.drops["no_peer"] == 1


# Keepalives


def test_what_was_received_is_answered_with_a_keepalive_after_10_seconds(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(60)
    start = world.clock.now
    a.send(b)

    world.run(60)

    assert world.sent("keepalive", since=start) == [pytest.approx(start + RTT / 2 + 10)]


def test_who_has_answered_owes_no_keepalive(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(60)
    start = world.clock.now
    a.send(b)
    world.run(1)
    b.send(a)

    world.run(60)

    assert world.sent("keepalive", "b", since=start) == []
    assert world.sent("keepalive", "a", since=start) == [pytest.approx(start + 1 + RTT / 2 + 10)]


def test_an_idle_session_sends_nothing(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(30)
    before = len(world.network.sent)

    world.run(3600)

    assert len(world.network.sent) == before


def test_a_persistent_keepalive_begins_with_a_handshake_and_goes_on(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, keepalive=25.0)
    b.know(a)
    start = world.clock.now

    world.run(101)

    assert world.sent("initiation") == [start]
    assert world.sent("keepalive", "a") == [pytest.approx(start + RTT + 25 * n, abs=0.05) for n in range(5)]


def test_a_keepalive_that_is_made_shorter_counts_from_now_on(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, keepalive=3600.0)
    b.know(a)
    world.run(10)
    a.tell(link.SetPeer(1, 1.0))

    world.run(10)

    assert len(world.sent("keepalive", "a")) >= 10


def test_a_keepalive_that_is_taken_away_ends(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, keepalive=1.0)
    b.know(a)
    world.run(10)
    a.tell(link.SetPeer(1, 0.0))
    before = len(world.network.sent)

    world.run(60)

    assert len(world.network.sent) == before


# Rekey and expiry


def test_a_session_in_use_is_renewed_after_120_seconds_without_a_lost_packet(world, pair):
    a, b = pair
    connected(world, a, b)

    to_a, to_b = keep_talking(world, a, b, 400)

    assert (a.received, b.received) == (to_a, to_b)
    assert [at - 1000 for at in world.sent("initiation")] == [
        pytest.approx(n * 120.1, abs=3) for n in range(4)
    ]
    assert a.drops + b.drops == {}


def test_only_the_initiator_renews(world, pair):
    a, b = pair
    connected(world, a, b)

    keep_talking(world, a, b, 400)

    assert world.sent("initiation", "b") == []


def test_the_responder_s_traffic_alone_keeps_a_session_going(world, pair):
    a, b = pair
    sent = []
    connected(world, a, b)
    for _ in range(400):
        sent += b.send(a)
        world.run(1)

    assert a.received == sent
    assert len(world.sent("initiation", "a")) >= 3


def test_a_receive_after_165_seconds_renews_at_once(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(166)
    start = world.clock.now
    b.send(a)

    world.run(1)

    assert world.sent("initiation", "a", since=start) == [pytest.approx(start + RTT / 2)]


def test_a_receive_before_165_seconds_waits_for_a_send(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(150)
    start = world.clock.now
    b.send(a)

    world.run(9)

    assert world.sent("initiation", since=start) == []


def test_after_180_seconds_a_keypair_is_dead(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(181)
    before = world.clock.now
    sent = b.send(a)

    world.run(1)

    assert a.received == sent
    assert len(world.sent("initiation", "b", since=before)) == 1


def test_a_message_under_an_expired_keypair_is_refused(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send(b)
    held = []
    world.network.lose = lambda flight: flight.kind == "data" and not held.append(flight)
    world.run(1)
    world.network.lose = lambda flight: False
    world.run(180)

    world.network.send(held[0])
    world.run(0.1)

    assert b.received == []
    assert b.drops["keypair_expired"] == 1


def test_keys_are_wiped_after_540_seconds(world, pair):
    a, b = pair
    connected(world, a, b)

    world.run(545)

    assert a.core.by_index == b.core.by_index == {}


def test_silence_of_15_seconds_makes_a_new_handshake(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(20)
    world.network.lose = lambda flight: flight.source[0] == b.addresses[0]
    start = world.clock.now
    a.send(b)

    world.run(16)

    assert world.sent("initiation", since=start) == [pytest.approx(start + 15.17, abs=0.2)]


def silences(node):
    return [report.is_over for report in node.reported if isinstance(report, link.Silence)]


def test_a_peer_that_answers_nothing_for_15_seconds_is_silent_until_it_is_heard(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(20)
    world.network.lose = lambda flight: True
    for _ in range(14):
        a.send(b)
        world.run(1)
    assert silences(a) == []

    for _ in range(40):
        a.send(b)
        world.run(1)
    assert silences(a) == [False]
    assert a.silent == {1}

    world.network.lose = lambda flight: False
    b.send(a)
    world.run(1)
    assert silences(a) == [False, True]
    assert a.silent == set()


def test_a_peer_that_is_sent_nothing_is_not_silent(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(170)

    assert silences(a) == silences(b) == []


def test_a_peer_given_up_that_is_heard_under_old_keys_is_given_up_no_longer(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: True
    while not a.sessions.status(1).is_given_up:
        a.send(b)
        world.run(1)

    world.network.lose = lambda flight: flight.kind != "data"
    b.send(a)
    world.run(1)

    assert not a.sessions.status(1).is_given_up


def test_silence_that_the_link_did_not_take_is_told_later(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: True
    a.send(b)
    a.link_size = 0
    world.run(16)
    a.link_size = math.inf
    a.send(b)
    world.run(16)

    assert silences(a) == [False]


# A peer that is not there


def test_a_lost_initiation_is_repeated_after_5_seconds(world, pair):
    a, b = pair
    start = world.clock.now
    world.network.lose = lambda flight: world.clock.now == start
    sent = a.send(b)

    world.run(6)

    assert world.sent("initiation") == [start, pytest.approx(start + 5.17, abs=0.17)]
    assert b.received == sent


def test_a_silent_peer_is_given_up_after_90_seconds_and_its_senders_are_told(world, pair):
    a, b = pair
    world.network.lose = lambda flight: True
    (packet,) = a.send(b)
    world.run(100)

    (error,) = a.received

    assert error[20:22] == bytes([3, 1])
    assert error[28:] == packet
    assert len(a.logged(GiveUp)) == 1
    assert len(world.sent("initiation")) == 19
    assert len(a.logged(LookUp)) == 18
    assert a.drops["given_up"] == 1


def test_a_peer_given_up_works_again_when_it_is_back(world, pair):
    a, b = pair
    world.network.lose = lambda flight: True
    a.send(b)
    world.run(100)
    world.network.lose = lambda flight: False
    sent = a.send(b)
    world.run(6)
    a.received.clear()
    sent += a.send(b)

    world.run(1)

    assert b.received == sent
    assert a.received == []  # no more errors


def test_a_peer_given_up_that_calls_is_no_longer_unreachable(world, pair):
    a, b = pair
    world.network.lose = lambda flight: True
    a.send(b)
    world.run(100)
    world.network.lose = lambda flight: False
    b.send(a)
    world.run(200)  # the session came and went
    a.received.clear()
    sent = a.send(b)

    world.run(1)

    assert b.received[-1:] == sent
    assert a.received == []


def test_a_peer_without_an_endpoint_is_unreachable_until_it_calls(world):
    a, b = world.node("a"), world.node("b")
    a.know(b)
    b.know(a, endpoint=None)
    b.send(a)
    world.run(1)
    assert b.received[0][20:22] == bytes([3, 1])

    connected_first = a.send(b)
    world.run(1)
    answer = b.send(a)
    world.run(1)

    assert b.received[1:] == connected_first
    assert a.received == answer


def test_a_preshared_key_mismatch_never_comes_up(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, psk=b"p" * 32)
    b.know(a, psk=b"q" * 32)
    a.send(b)
    b.send(a)

    world.run(60)

    assert a.received == b.received == []
    assert world.sent("data") + world.sent("keepalive") == []
    assert a.refused["response_seal"] > 0
    assert a.logged(Completed) == b.logged(Completed) == []
    assert [state_of(node.sessions.status(1), world.clock.now, 180) for node in (a, b)] == ["unconfirmed"] * 2


def test_a_stranger_gets_no_answer(world, pair):
    _, b = pair
    stranger = world.node("stranger")
    stranger.know(b)
    stranger.send(b)

    world.run(10)

    assert b.refused["initiation_unknown_peer"] == 2
    assert world.sent("response") == []


# Restarts


def test_after_a_restart_that_shakes_hands_traffic_goes_on_within_2_seconds(world, pair):
    a, b = pair
    connected(world, a, b)
    b.restart()
    b.want(1)
    world.run(2)
    to_b, to_a = a.send(b), b.send(a)

    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)


@pytest.mark.parametrize("seed", seeds(6))
def test_a_restart_right_after_a_handshake_is_not_taken_for_a_crossing(seed):
    world = World(seed)
    a, b = world.pair()
    connected(world, a, b)
    b.restart()
    b.want(1)
    world.run(1)
    to_b, to_a = a.send(b), b.send(a)

    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)


def test_after_a_silent_restart_traffic_goes_on_once_silence_is_noticed(world, pair):
    a, b = pair
    connected(world, a, b)
    b.restart()
    keep_talking(world, a, b, 17)
    a.received.clear()
    b.received.clear()

    to_a, to_b = keep_talking(world, a, b, 30)

    assert (a.received, b.received) == (to_a, to_b)


def test_a_new_forwarder_never_uses_an_old_key(world, pair):
    a, b = pair
    connected(world, a, b)
    a.restart_forwarder()
    a.sessions.start_over()
    a.want(1)
    sent = a.send(b)

    world.run(1)

    assert b.received == sent
    assert len(world.sent("initiation", "a")) == 2


def test_a_peer_that_comes_back_under_another_key_is_another_peer(world, pair):
    a, b = pair
    connected(world, a, b)
    b.key = PrivateKey.generate(seeded("another key"))
    a.tell(link.RemovePeer(1))
    a.sessions.remove_peer(1)
    a.know(b)
    b.restart()
    sent = a.send(b)

    world.run(1)

    assert b.received == sent


# Moving about


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
    b.peer().path.due = math.inf  # the kernel is asked for the path once this is reset

    flap(world, a, b, 100, 10.0)
    is_asked_meanwhile = b.peer().path.due < math.inf
    world.run(6)

    assert not is_asked_meanwhile
    assert b.peer().path.due < math.inf


def test_a_source_address_that_went_away_costs_no_packet(world, pair):
    a, b = pair
    connected(world, a, b)
    a.addresses = ["198.51.100.7"]  # and nobody tells the forwarder: the kernel refuses the old one
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
    """With pings each way in turn, one that did so left both where they were for good."""
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

    assert b.received[-1:] == sent  # and it is reached again from its new port
    assert b.peer().endpoint == ("203.0.113.1", 40_002 + 1)


# Weather


@pytest.mark.parametrize("seed", seeds(4))
def test_in_bad_weather_packets_are_neither_doubled_nor_damaged(seed):
    world = World(seed, has_gro=seed % 2 == 0)
    a, b = world.pair()
    net = world.network
    net.loss, net.reorder, net.duplicate = 0.1, 0.3, 0.1

    to_a, to_b = keep_talking(world, a, b, 300, step=0.5)

    for received, sent in ((a.received, to_a), (b.received, to_b)):
        assert len(set(received)) == len(received)
        assert set(received) <= set(sent)
        assert len(received) > 0.8 * len(sent)
    assert set(a.drops) | set(b.drops) <= {"replay", "unknown_index"}


@pytest.mark.parametrize("seed", seeds(4))
def test_super_packets_in_bad_weather_come_out_as_their_segments(seed):
    world = World(seed, has_gro=seed % 2 == 0)
    a, b = world.pair()
    connected(world, a, b)
    net = world.network
    net.loss, net.reorder, net.duplicate = 0.03, 0.05, 0.05
    sent = []
    for number in range(20):
        sent += a.send_super(b, 40_000, sequence=1 + number * 40_000, identifier=number * 1000)
        world.run(0.1)

    assert len(set(b.received)) == len(b.received)
    assert set(b.received) <= set(sent)
    assert len(b.received) > 0.9 * len(sent)


def test_a_suspend_of_an_hour_is_survived(world, pair):
    a, b = pair
    connected(world, a, b)
    world.sleep(3600)

    to_a, to_b = keep_talking(world, a, b, 10)

    assert (a.received, b.received) == (to_a, to_b)


def test_one_side_asleep_for_three_minutes_is_found_again(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: True
    for _ in range(180):
        a.send(b)
        world.run(1)
    world.network.lose = lambda flight: False
    world.run(6)
    a.received.clear()
    b.received.clear()

    to_a, to_b = keep_talking(world, a, b, 5)

    assert (a.received, b.received) == (to_a, to_b)


def test_a_wall_clock_that_is_set_back_does_not_stop_rekeying(world, pair):
    a, b = pair
    connected(world, a, b)
    world.clock.wall -= 10**9 * 3600

    to_a, to_b = keep_talking(world, a, b, 300)

    assert (a.received, b.received) == (to_a, to_b)


def test_a_seeded_run_repeats_byte_for_byte():
    def story(seed):
        world = World(seed)
        a, b = world.pair()
        world.network.loss = world.network.reorder = 0.1
        keep_talking(world, a, b, 130)
        a.send_super(b, 30_000)
        world.run(1)
        return world.network.digest, a.received, b.received

    assert story(1) == story(1)
    assert story(1) != story(2)


# Under attack


def forged_initiations(victim, count):
    """Initiations of somebody who knows the public key of *victim*, each from another address."""
    attacker = PrivateKey.generate(seeded("attacker"))
    for number in range(count):
        sessions = Sessions(attacker, entropy=seeded(number), wall_ns=lambda: 0)
        sessions.add_peer(1, victim.key.public)
        (transmit,) = sessions.want(1, 0.0)
        source = (f"198.51.{100 + number // 250}.{number % 250 + 1}", 1000 + number)
        yield Flight(source, (victim.addresses[0], victim.port), transmit.datagram)


def test_under_load_a_peer_with_a_cookie_gets_through(world, pair):
    a, b = pair
    b.is_agent_busy = True
    for flight in forged_initiations(b, 500):
        world.network.send(flight)
    world.run(0.1)
    assert len(world.sent("cookie", "b")) == 500 - 64

    sent = a.send(b)
    world.run(0.1)
    assert len(world.sent("cookie", "b")) == 500 - 64 + 1
    for flight in forged_initiations(b, 70):  # so that the load lasts
        world.network.send(flight)
    world.run(5.5)
    b.is_agent_busy = False
    world.run(1)

    assert b.received == sent
    assert b.refused["initiation_unknown_peer"] == 64
    assert b.drops["handshake_under_load"] == 500 - 64 + 1 + 70


def test_a_flood_of_forged_cookie_replies_does_not_shut_the_door(world, pair):
    a, b = pair
    b.is_agent_busy = True
    for number in range(2000):
        forged = (3).to_bytes(4, "little") + number.to_bytes(60, "little")
        world.network.send(Flight(("198.51.100.1", 1000 + number), (b.addresses[0], b.port), forged))
    world.run(0.1)
    sent = a.send(b)
    world.run(5.5)  # once for the cookie
    b.is_agent_busy = False
    world.run(1)

    assert b.received == sent


def test_handshakes_that_found_the_link_full_do_not_shut_the_door(world, pair):
    a, b = pair
    b.is_agent_busy, b.link_size = True, 10
    for flight in forged_initiations(b, 200):
        world.network.send(flight)
    world.run(1)
    b.is_agent_busy, b.link_size = False, 1000
    world.run(1)
    sent = a.send(b)

    world.run(1)

    assert b.received == sent
    assert b.drops["link_full"] == 190
    assert not world.sent("cookie")


def test_garbage_and_forgeries_leave_a_session_as_it_was(world, pair):
    a, b = pair
    connected(world, a, b)
    chance = random.Random(1)
    keypair = b.peer().keypairs.current
    endpoint = b.peer().endpoint
    for _ in range(300):
        size = chance.choice([0, 1, 3, 4, 15, 16, 31, 32, 64, 92, 148, 1000])
        forged = bytearray(chance.randbytes(size))
        forged[:4] = chance.choice([b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0", b"\4\0\0\1", b""])[
            :size
        ]
        if chance.random() < 0.5:
            forged[4:8] = keypair.local_index.to_bytes(4, "little")
        world.network.send(Flight(("198.51.100.1", 7), (b.addresses[0], b.port), bytes(forged)))
    world.run(1)
    dropped = sum(b.drops.values()) + sum(b.refused.values())

    sent = a.send(b)
    world.run(1)

    assert b.received == sent
    assert b.peer().endpoint == endpoint
    assert dropped == 300


# ECN (RFC 6040)


@pytest.mark.parametrize("inner", range(4))
def test_the_outer_header_carries_the_inner_ecn_field_and_no_dscp(world, pair, inner):
    a, b = pair
    connected(world, a, b)
    outer = []
    world.network.lose = lambda flight: flight.kind == "data" and bool(outer.append(flight.tos))
    sent = a.send(b, tos=0xB8 | inner)

    world.run(1)

    assert outer == [inner]
    assert b.received == sent


@pytest.mark.parametrize("version", [4, 6])
def test_a_congestion_mark_on_the_way_reaches_the_receiver(world, pair, version):
    a, b = pair
    connected(world, a, b)
    world.network.mark = lambda flight: 3
    capable, _ = a.send(b, tos=2, version=version), a.send(b, tos=0, version=version)

    world.run(1)

    (heard,) = b.received
    assert (heard[1] & 3 if version == 4 else heard[1] >> 4 & 3) == 3
    assert packets.is_ip_checksum_right(heard)
    assert heard[20:] == capable[0][20:] if version == 4 else heard[2:] == capable[0][2:]
    assert b.drops["ecn"] == 1


def test_a_marked_super_packet_is_marked_in_every_segment(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.mark = lambda flight: 3
    sent = a.send_super(b, 20_000, tos=2)

    world.run(1)

    assert len(b.received) == len(sent)
    assert all(heard[1] & 3 == 3 and packets.is_ip_checksum_right(heard) for heard in b.received)
    assert [heard[20:] for heard in b.received] == [each[20:] for each in sent]


# Super-packets


@pytest.mark.parametrize("version", [4, 6])
def test_super_packets_go_both_ways(world, pair, version):
    a, b = pair
    connected(world, a, b)
    segment = 1360 if version == 4 else 1340
    to_a, to_b = [], []
    for number in range(10):
        tcp = {"version": version, "sequence": 1 + number * 64_000, "flags": ACK | PSH}
        to_b += a.send_super(b, 64_000, segment, **tcp)
        to_a += b.send_super(a, 64_000, segment, **tcp)
        world.run(0.1)

    assert (a.received, b.received) == (to_a, to_b)
    assert len(b.tun.writes) <= 40
    assert a.drops + b.drops == {}


def test_a_super_packet_that_waited_for_the_handshake_arrives_whole(world, pair):
    a, b = pair
    sent = a.send_super(b, 60_000) + a.send(b) + a.send_super(b, 3000, 1000, sequence=60_001)

    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("flags", [ACK | CWR, ACK | ECE | CWR | PSH, ACK | ECE])
def test_flags_of_ecn_survive(world, pair, flags):
    a, b = pair
    connected(world, a, b)
    sent = a.send_super(b, 5000, 1000, flags=flags, tos=2)

    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize("segments", [True, False])
def test_kernels_without_offloads_carry_the_same(world, gro, segments):
    a, b = world.node("a"), world.node("b")
    a.has_gro = b.has_gro = gro
    a.has_segments = b.has_segments = segments
    a.restart()
    b.restart()
    a.know(b)
    b.know(a)
    sent = a.send_super(b, 60_000) + a.send(b, 10)

    world.run(1)

    assert b.received == sent


def test_a_device_that_cannot_cut_is_remembered(world, pair):
    a, b = pair
    connected(world, a, b)
    a.sockets[0].errors.append(errno.EIO)
    sent = a.send_super(b, 60_000)

    world.run(1)

    assert b.received == sent
    assert not a.core.sender.segments


def test_a_route_of_a_smaller_mtu_still_carries_what_fitted(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send(b, size=1297 - 28)

    world.run(1)

    assert world.network.sent[-1][3] == 1297 + 15 + 32  # padded to 1312, below the MTU of 1420
    a.tell(link.SetNode(1299, False, []))
    sent = a.send(b, size=1297 - 28)
    world.run(1)
    assert b.received[1:] == sent
    assert world.network.sent[-1][3] == 1297 + 32


# Back-pressure


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
    sent = [packet for _ in range(20) for packet in a.send_super(b, 60_000)]
    world.run(1)

    a.sockets[0].is_full = False
    world.run(1)

    assert b.received == sent[: len(b.received)]
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


# Many peers, and changes while packets flow


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
    world.run(30)  # nothing is owed
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


def test_a_forwarder_that_begins_anew_greets_a_crowd_that_answers_slowly_without_cookies():
    world = World()
    hub = world.node("hub")
    spokes = [world.node(f"spoke {number}") for number in range(100)]
    for spoke in spokes:
        hub.know(spoke)
        spoke.know(hub, endpoint=False)
    for number in range(100):
        hub.want(number + 1)
    hub.is_agent_busy = True  # while all answers come
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


# A peer with a keepalive that is not there


def dead(world, keepalive=25.0):
    """Return a node with a peer that was given up, and the moment."""
    a, b = world.pair(keepalive=keepalive)
    world.network.lose = lambda flight: True
    while not a.sessions.status(1).is_given_up:
        world.run(1)
    return a, b, world.clock.now


@pytest.mark.parametrize("keepalive", [1.0, 25.0, 3600.0])
def test_a_dead_peer_with_a_keepalive_is_called_ever_more_seldom(world, keepalive):
    a, _, start = dead(world, keepalive)
    world.run(2 * 3600)

    calls = world.sent("initiation", by="a", since=start)
    gaps = [later - sooner for sooner, later in pairwise(calls)]

    assert len(calls) <= 7200 / 60 + 25
    assert sorted(gaps[:3]) == gaps[:3]
    assert gaps[:2] == [pytest.approx(20, abs=1), pytest.approx(40, abs=1)]
    assert max(gaps[3:10]) <= 62
    assert a.sessions.status(1).is_given_up
    assert len(a.logged(GiveUp)) == 1


def test_traffic_for_a_dead_peer_breaks_the_pause(world):
    a, b, _ = dead(world)
    world.run(600)
    start = world.clock.now

    a.send(b)
    world.run(30)

    assert len(world.sent("initiation", by="a", since=start)) >= 5
    assert not a.sessions.status(1).is_given_up


def test_a_dead_peer_that_calls_is_reached_and_not_left_alone_again(world):
    a, b, _ = dead(world)
    world.run(600)
    world.network.lose = lambda flight: False
    start = world.clock.now
    b.want(1)
    world.run(1)
    assert a.sessions.status(1).completed_at == pytest.approx(start, abs=0.1)

    world.network.lose = lambda flight: True
    while not a.sessions.status(1).is_given_up:
        a.send(b)
        world.run(1)
    start = world.clock.now
    world.run(60)

    assert len(world.sent("initiation", by="a", since=start)) >= 2


def test_a_dead_peer_that_comes_back_is_found_by_itself_within_the_pause(world):
    a, _, _ = dead(world)
    world.run(3600)
    world.network.lose = lambda flight: False

    world.run(62)

    assert a.sessions.status(1).completed_at is not None


def test_a_peer_without_keepalive_that_is_dead_is_not_called(world):
    a, b = world.pair()
    world.network.lose = lambda flight: True
    a.send(b)
    world.run(120)
    start = world.clock.now
    world.run(3600)

    assert world.sent("initiation", by="a", since=start) == []
