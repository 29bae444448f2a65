"""Which packets of the tun are ours on their way to a peer; what else becomes of packets, test_core and others tell."""

from __future__ import annotations

import pytest

from tests import packets
from tests.sim import World

VERSIONS = {4: ("192.0.2.0/24", 0), 6: ("2001:db8::/32", 1)}


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def looped(request):
    """Nodes with a session, the version that they call each other by, and what makes b's own datagrams to a."""
    prefix, which = VERSIONS[request.param]
    world = World()
    a, b = world.node("a"), world.node("b")
    ends = [(each.addresses[which], each.port, *[0, 0] * which) for each in (a, b)]
    a.know(b, endpoint=ends[1])
    b.know(a, endpoint=ends[0])
    b.send(a)
    world.run(1)
    b.route([(prefix, 1)])

    def made(ports=(b.port, a.port), size=100, **ip):
        addresses = {"source": b.addresses[which], "destination": a.addresses[which], **ip}
        return packets.udp(bytes(size), version=request.param, ports=ports, **addresses)

    return a, b, made


def send(b, packet):
    """Let b send *packet*; return what was dropped, and how many packets left."""
    before, sent = b.drops, b.peer().tx_packets
    b.tun.outgoing.append(packets.PLAIN + packet)
    b.world.run(0.1)
    return b.drops - before, b.peer().tx_packets - sent


def test_our_own_datagram_to_a_peer_is_a_loop_and_none_that_differs(looped):
    a, b, made = looped
    others = [
        made(ports=(7, a.port)),
        made(ports=(b.port, 7)),
        made(ports=(a.port - 1, b.port)),
        made(destination=a.inner(4 if made()[0] >> 4 == 4 else 6)),
    ]

    assert send(b, made()) == ({"loop": 1}, 0)
    assert [send(b, each) for each in others] == [({}, 1)] * len(others)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_packet_that_ends_before_its_ports_is_no_loop_whatever_stood_there_before(looped, size):
    _, b, made = looped
    whole = made()
    assert send(b, whole) == ({"loop": 1}, 0)

    short = packets.with_total_length(whole[: packets.l4_start(whole) + size])

    assert send(b, short) == ({}, 1)


def test_a_packet_of_another_protocol_with_the_same_ports_is_no_loop(looped):
    a, b, made = looped
    whole = made()
    addresses = {"source": str(packets.ip_address(whole[12:16] if whole[0] >> 4 == 4 else whole[8:24]))}
    addresses["destination"] = str(packets.ip_address(whole[16:20] if whole[0] >> 4 == 4 else whole[24:40]))

    packet = packets.tcp(b"x", version=whole[0] >> 4, ports=(b.port, a.port), **addresses)

    assert send(b, packet) == ({}, 1)


def test_a_loop_is_seen_behind_ip_options():
    world = World()
    a, b = world.pair()
    b.send(a)
    world.run(1)
    b.route([("192.0.2.0/24", 1)])
    ends = {"source": b.addresses[0], "destination": a.addresses[0]}

    packet = packets.udp(bytes(50), ports=(b.port, a.port), options=bytes([1]) * 8, **ends)

    assert send(b, packet) == ({"loop": 1}, 0)
