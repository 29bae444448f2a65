"""The first packet, and the handshake that it triggers."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.keypair import GOES_OVER_WITHIN
from overlay.wire.icmp import Echo
from tests import packets
from tests.hypothesis_profiles import examples
from tests.two_nodes.stories.talking import RTT, connected, keep_talking
from tests.two_nodes.stories.test_crossing import crossing, use_one_keypair


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


@examples(200)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 1.0]))
def test_both_ends_use_one_keypair_some_seconds_after_handshakes_whose_messages_come_in_any_order(
    seed, reorder
):
    """Before, each end kept its own if an answer overtook an initiation, and the twin considered neither ordinary."""
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
