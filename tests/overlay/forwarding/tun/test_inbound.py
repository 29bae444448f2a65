"""What the receiving half remembers, and the source of answers to a peer; test_core and others test packets."""

from __future__ import annotations

import dataclasses
import socket
import struct

import pytest

from overlay.forwarding.clear.raw import SOURCES
from overlay.forwarding.in_band import MESSAGES_AT_ONCE
from overlay.forwarding.tun.inbound import ARRIVALS
from overlay.forwarding.tun.opening import VIEW_ROWS, VIEWS
from overlay.forwarding.underlay.batching import PROBE
from overlay.link import messages as link
from overlay.wire.bulk import AES_256_GCM
from tests import packets
from tests.network import FakeSocket, Flight
from tests.sim import World

DIFFERENT = 10_000


@pytest.fixture
def pair():
    """Nodes with a session and units, with nothing in flight."""
    world = World(ciphers=[AES_256_GCM])
    a, b = world.pair()
    a.send(b)
    world.run(1)
    a.send_super(b, 20_000)
    world.run(1)
    return a, b


def waiting(a, b, count, size=60):
    """Return *count* packets of a that have arrived at b and have not been read yet."""
    sent = a.send(b, count, size)
    a.turn()
    a.world.clock.advance(1)
    a.world.network.deliver()
    return sent


def arrive(b, source, *datagrams, tos=0):
    """Let b receive *datagrams* from the address *source* in one turn."""
    ends = source, (b.addresses[0], b.port)
    b.sockets[0].inbox += [Flight(*ends, each, tos) for each in datagrams]
    b.turn()


# Memory that strangers can fill


def test_what_the_kernel_says_beside_receives_is_remembered_in_bounds(pair):
    _, b = pair
    inbound = b.core.inbound
    for number in range(DIFFERENT):
        local = number.to_bytes(4, "big")
        inbound.arrival([(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 1, local, local))])
        assert len(inbound._arrivals) <= ARRIVALS

    arrival = inbound.arrival([(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 1, b"abcd", b"abcd"))])

    assert arrival.pktinfo == (4, b"abcd")


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 37], ids=["of few", "of many"])
def test_layouts_of_merged_receives_are_remembered_in_bounds(pair, step):
    a, b = pair
    index, opening = a.peer().keypairs.current.remote_index, b.core.inbound._opening
    source, b.gro_count, most = (a.addresses[0], 4000), 2000, 0
    for number in range(2 * VIEWS):
        size, count = 33 + number, 2 + (step > 1) * (step * number % 500)
        forged = struct.pack("<IIQ", 4, index, 2**40 + number).ljust(size, b"x")
        arrive(b, source, *[forged] * min(count, 65000 // size))

        assert len(opening._views) <= VIEWS
        rows = sum(count for _, count in opening._views)
        assert rows == opening._view_rows <= VIEW_ROWS
        most = max(most, len(opening._views))

    assert most > 1


def test_outer_sources_of_raw_packets_are_remembered_in_bounds():
    world = World()
    _, b = world.raw_pair("ipip")
    raw = b.core.inbound.raw
    for number in range(DIFFERENT):
        name = struct.pack("=H2x4s8x", socket.AF_INET, number.to_bytes(4, "big"))

        assert raw._source(name)[0] == socket.inet_ntoa(number.to_bytes(4, "big"))
        assert len(raw._sources) <= SOURCES


# What does not fit, and what the kernel reports instead of a datagram


ODD = {
    "too large": (bytes(66000), "oversized"),
    "empty": (b"", "unknown_type"),
    "of one byte": (b"\4", "unknown_type"),
    "a header alone": (b"\4\0\0\0" + bytes(12), "transport_short"),
    "of nobody": (b"\4\0\0\0\1\2\3\4" + bytes(80), "unknown_index"),
    "of no type": (b"\7" * 96, "unknown_type"),
}


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("has_gro", [True, False])
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(("odd", "reason"), ODD.values(), ids=ODD)
def test_a_datagram_that_is_refused_costs_its_neighbours_nothing(is_batch, has_gro, place, odd, reason):
    world = World(has_gro=has_gro)
    a, b = world.pair()
    a.send(b, 3 * PROBE)
    world.run(1)
    if not is_batch:
        for _ in range(PROBE):
            a.send(b)
            world.run(1)
    b.received.clear()
    sent = a.send(b, 3)
    a.turn()
    world.clock.advance(1)
    world.network.deliver()
    genuine = b.sockets[0].inbox[0]
    for _ in range(2):
        b.sockets[0].inbox.insert(place, dataclasses.replace(genuine, datagram=odd))

    b.turn()

    assert b.received == sent
    assert b.drops == {reason: 2}


@pytest.mark.parametrize("joins_udp", [True, False])
@pytest.mark.parametrize("name", ["ipip", "gre"])
def test_raw_packets_of_a_udp_flow_enter_the_tun_as_one_where_the_kernel_takes_that(name, joins_udp):
    world = World()
    a, b = world.node("a"), world.node("b")
    b.joins_udp = joins_udp
    b.restart_forwarder()
    a.know_raw(b, name)
    b.know_raw(a, name)
    sent = [
        packets.udp(bytes(100), identifier=number, source=a.inner(), destination=b.inner())
        for number in range(5)
    ]
    a.tun.outgoing += [packets.PLAIN + packet for packet in sent]
    world.run(1)

    assert b.received == sent
    assert len(b.tun.writes) == (1 if joins_udp else 5)


@pytest.mark.parametrize("pace", ["one", "batches"])
@pytest.mark.parametrize("error", [ConnectionRefusedError, OSError])
def test_an_icmp_error_of_the_underlay_is_counted_and_what_comes_behind_it_arrives(pace, error):
    world = World(has_gro=False)
    a, b = world.pair()
    a.send(b)
    world.run(1)
    b.received.clear()
    sent, raw, udp = waiting(a, b, 3), b.sockets[0], b.core.sender.sockets[0]
    receive, errors = raw.recvmsg_into, [error("told of an earlier datagram")] * 2

    def recvmsg_into(buffers, size):
        if errors:
            raise errors.pop()
        return receive(buffers, size)

    raw.recvmsg_into = recvmsg_into
    udp.pace.took(1 if pace == "one" else 2)
    while b.core.inbound.drain(udp, world.clock.now):
        pass

    assert b.received == sent
    assert b.drops == {"udp_error": 2}


@pytest.mark.parametrize("has_gro", [True, False])
@pytest.mark.parametrize("ciphers", [(), (AES_256_GCM,)])
@pytest.mark.parametrize("count", [1, 3, 300])
def test_where_units_are_off_what_looks_like_a_control_message_is_a_packet_of_no_version(
    has_gro, ciphers, count
):
    """Alone or merged; if units are on, it is read, and its content does not matter here."""
    world = World(has_gro=has_gro, ciphers=ciphers)
    a, b = world.pair()
    a.send(b)
    world.run(1)
    peer = a.peer()
    for _ in range(count):
        a.core.outbound.send_payload(peer, peer.keypairs.current, b"\x91\x7f" + bytes(62))

    world.run(1)

    more = {"control_rate": 300 - MESSAGES_AT_ONCE} if count == 300 else {}
    assert b.drops == (more if ciphers else {"inner_version": count})


# How much is read in one go


@pytest.mark.parametrize("has_gro", [True, False])
def test_one_go_takes_as_many_bytes_as_it_is_told_and_leaves_the_rest(has_gro):
    world = World(has_gro=has_gro)
    a, b = world.pair()
    a.send(b, 3 * PROBE)
    world.run(1)
    b.received.clear()
    b.gro_count = 2
    sent = waiting(a, b, 20, 1000 - 32 - 28)  # 1000 bytes each with what is around them
    udp, now, inbox = b.core.sender.sockets[0], world.clock.now, b.sockets[0].inbox
    udp.pace.took(2)

    assert b.core.inbound.drain(udp, now, 5000)
    assert len(inbox) == (14 if has_gro else 15)
    assert b.received == sent[: 20 - len(inbox)]
    assert b.core.inbound.drain(udp, now, 100_000) is False
    assert b.received == sent


@pytest.mark.parametrize("what", ["errors", "nothing", "too large"])
def test_what_brings_no_bytes_counts_as_well_so_that_nobody_holds_up_the_tun(what):
    world = World(has_gro=False)
    a, b = world.pair()
    a.send(b, 3 * PROBE)
    world.run(1)
    calls = []

    def receive(buffers, _):
        calls.append(1)
        if what == "errors":
            raise ConnectionRefusedError
        return (0, [], 0, ("192.0.2.77", 1)) if what == "nothing" else (64, [], 0x20, ("192.0.2.77", 1))

    b.sockets[0].recvmsg_into = receive

    assert b.core.inbound.drain(b.core.sender.sockets[0], world.clock.now, 6400)
    assert len(calls) == (100 if what == "too large" else 200)
    assert b.drops.total() == len(calls)


def test_segments_of_tcp_that_come_singly_enter_the_tun_in_one_write_and_end_with_a_push():
    world = World(has_gro=False)
    a, b = world.pair()
    a.send(b, 3 * PROBE)
    world.run(1)
    b.tun.writes.clear()
    b.received.clear()
    first = a.send_super(b, 10_000)
    second = a.send_super(b, 10_000, sequence=10_001)
    a.turn()
    world.clock.advance(1)
    world.network.deliver()

    b.turn()

    assert b.received == first + second
    assert len(b.tun.writes) == 2  # the last segment of a super-packet is shorter


# The source of answers to a peer


def open_two(node):
    """Let *node* listen at two addresses of one family: two sockets, neither of which replaces the other."""
    opened = [FakeSocket(node, socket.AF_INET, port) for port in (node.port + 1, node.port + 2)]
    node.sockets += opened
    node.tell(link.Sockets("wireguard", [link.SocketRow(2, node.port + 1)] * 2), opened)
    return opened


@pytest.mark.parametrize("has_gro", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_peer_that_calls_at_another_socket_of_ours_is_answered_from_there(has_gro, count):
    world = World(has_gro=has_gro)
    a, b = world.pair()
    first, second = open_two(b)
    a.tell(link.SetEndpoint(1, (b.addresses[0], first.port), "configuration"))
    a.send(b)
    world.run(1)
    assert b.peer().local.socket.raw is first

    a.tell(link.SetEndpoint(1, (b.addresses[0], second.port), "configuration"))
    a.send(b, count)
    world.run(1)
    sends = first.sends, second.sends
    b.send(a, 3)
    world.run(1)

    assert b.peer().local.socket.raw is second
    assert first.sends == sends[0]
    assert second.sends > sends[1]
    assert len(a.received) == 3
    assert a.peer().endpoint == (b.addresses[0], second.port)


def test_a_peer_is_answered_from_the_address_that_it_called():
    world = World()
    a, b = world.pair()
    b.addresses.append("192.0.2.99")
    a.send(b)
    world.run(1)

    a.tell(link.SetEndpoint(1, ("192.0.2.99", b.port), "configuration"))
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(1)

    assert a.peer().endpoint == ("192.0.2.99", b.port)


def test_a_forged_datagram_moves_neither_socket_nor_address(pair):
    a, b = pair
    first, second = open_two(b)
    a.tell(link.SetEndpoint(1, (b.addresses[0], first.port), "configuration"))
    a.send(b)
    a.world.run(1)
    before = b.peer().local.socket, b.peer().endpoint, b.peer().local.received_source
    index = a.peer().keypairs.current.remote_index

    for forged in (
        struct.pack("<IIQ", 4, index, 2**40) + bytes(64),
        struct.pack("<BBBBIQ", 5, 0, 1, 1, index, 9) + bytes(64),
    ):
        second.inbox.append(Flight(("192.0.2.77", 1), (b.addresses[0], second.port), forged))
        b.turn()

    assert b.peer().local.socket is before[0]
    assert (b.peer().endpoint, b.peer().local.received_source) == before[1:]
