"""The content of one receive from raw sockets, and what the next one finds of it."""

from __future__ import annotations

import errno
import socket

import pytest

from overlay.forwarding.peer import WIDE
from overlay.forwarding.underlay.mmsg import LARGEST_ROW
from overlay.wire.ip import ECT_0, ECT_1
from tests import packets
from tests.network import Flight
from tests.overlay.forwarding.clear.raw_world import GRE, IPIP, IPV6, STRANGER, arrive, genuine, unfinished
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import World

# What one receive may contain besides a peer's packets


@pytest.mark.parametrize("count", [2, 11])
@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("is_tcp", [True, False])
def test_a_stranger_s_packet_in_a_peer_s_batch_is_refused_alone(world, count, place, is_tcp):
    a, b = world.raw_pair("ipip")
    for _ in range(2):  # the second time rows have the size that the first had
        whole = genuine(b, a, size=count * 400, tcp=is_tcp)
        sent = packets.kernel_segments(*packets.as_super_packet(whole, 400)) if is_tcp else [whole] * count
        sources = [b.addresses[0]] * count
        sources[place] = STRANGER
        a.received.clear()
        before = a.drops["outer_source"]

        for packet, source in zip(sent, sources, strict=True):
            world.network.send(Flight((source, 0), (a.addresses[0], 0), packet, protocol=IPIP))
        world.run(0.1)

        del sent[place]
        assert a.received == sent
        assert a.drops["outer_source"] == before + 1
    assert set(a.drops) == {"outer_source"}


@pytest.mark.parametrize("count", [2, 11])
@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize(
    "wrong", ["2000080000000008", "2000080001000007", "0000080000000007", "200086dd00000007"]
)
def test_a_packet_with_another_header_in_a_batch_is_refused_alone(world, count, place, wrong):
    a, b = world.raw_pair("gre", identifier=7)
    right = bytes.fromhex("2000080000000007")
    for number in range(1, 3):
        sent = packets.kernel_segments(
            *packets.as_super_packet(genuine(b, a, size=count * 400, tcp=True), 400)
        )
        payloads = [right + packet for packet in sent]
        payloads[place] = bytes.fromhex(wrong) + sent[place]
        a.received.clear()

        arrive(world, a, *payloads, source=b.addresses[0], protocol=GRE)

        del sent[place]
        assert a.received == sent
        assert a.drops.total() == number


@pytest.mark.parametrize("count", [2, 11])
def test_packets_of_two_tunnels_at_one_address_in_a_batch_go_to_their_own(world, count):
    a, b, c = (world.node(name) for name in "abc")
    at = (b.addresses[0], 0)
    one, two = (a.know_raw(each, "gre", identifier=key, endpoint=at) for each, key in ((b, 7), (c, 8)))
    of = {key: bytes.fromhex("20000800") + key.to_bytes(4, "big") for key in (7, 8)}
    mixed = [of[7] + genuine(b, a, size=100), of[8] + genuine(c, a, size=100)] * count

    for _ in range(2):
        arrive(world, a, *mixed, source=b.addresses[0], protocol=GRE)
        arrive(world, a, of[8] + genuine(b, a), of[7] + genuine(c, a), source=b.addresses[0], protocol=GRE)

    assert (a.peer(one).traffic.rx_packets, a.peer(two).traffic.rx_packets) == (2 * count, 2 * count)
    assert a.drops == {"source": 4}
    train = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=count * 400, tcp=True), 400))
    for _ in range(2):
        arrive(world, a, *[of[8] + packet for packet in train], source=b.addresses[0], protocol=GRE)
    assert a.drops == {"source": 4 + 2 * count}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("beyond", [1, 2, 255])
def test_rows_with_a_packet_that_is_longer_than_what_came_are_looked_at_one_by_one(world, version, beyond):
    a, b = world.raw_pair("ipip")
    at, protocol = (2, IPIP) if version == 4 else (4, IPV6)
    for number in range(1, 3):
        whole = genuine(b, a, size=4000, tcp=True, version=version)
        sent = packets.kernel_segments(*packets.as_super_packet(whole, 400))
        length = int.from_bytes(sent[3][at : at + 2], "big") + beyond
        sent[3] = packets.with_ip_checksum(sent[3][:at] + length.to_bytes(2, "big") + sent[3][at + 2 :])
        a.received.clear()

        arrive(world, a, *sent, source=b.addresses[0], protocol=protocol)

        del sent[3]
        assert a.received == sent
        assert a.drops == {"inner_length": number}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["ipip", "gre"])
def test_rows_of_packets_that_end_where_they_say_are_joined_and_counted_whole(name, version):
    world = World()
    a, b = world.raw_pair(name)
    whole = genuine(b, a, size=4000, tcp=True, version=version)
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 400))
    header = b"" if name == "ipip" else bytes.fromhex("00000800" if version == 4 else "000086dd")
    protocol = GRE if name == "gre" else IPIP if version == 4 else IPV6
    payloads = [header + packet for packet in sent]
    arrive(world, a, *payloads, source=b.addresses[0], protocol=protocol)
    before, writes = (a.peer().traffic.rx_bytes, a.peer().traffic.rx_packets), len(a.tun.writes)
    a.received.clear()

    arrive(world, a, *payloads, source=b.addresses[0], protocol=protocol)

    assert a.received == sent
    assert len(a.tun.writes) - writes == 1
    assert a.peer().traffic.rx_bytes - before[0] == sum(map(len, payloads))
    assert a.peer().traffic.rx_packets - before[1] == len(sent)
    assert a.peer().contact.last_received > 0


# How much is read in one go


def drained(node, receive):
    """Let *node* drain its socket of IP in IP over IPv4, which receives by *receive*;
    return whether there may be more.
    """
    (udp,) = [
        each
        for each in node.core.sender.sockets
        if each.protocol == IPIP and each.family == socket.AF_INET and each.raw.receives
    ]
    udp.carrier.receive = receive(udp.carrier.receive)
    return node.core.inbound.drain(udp, 1.0)


def test_errors_that_a_socket_tells_of_earlier_packets_are_counted_and_no_end_of_the_packets():
    world = World()
    a, b = world.raw_pair("ipip")
    packet = genuine(b, a)
    errors = [OSError(errno.ECONNREFUSED, "ECONNREFUSED")] * 2

    def failing(receive):
        def receive_or_fail(into):
            if errors:
                raise errors.pop()
            return receive(into)

        return receive_or_fail

    world.network.send(Flight((b.addresses[0], 0), (a.addresses[0], 0), packet, protocol=IPIP))
    world.clock.advance(1)
    world.network.deliver()

    assert not drained(a, failing)
    assert a.received == [packet]
    assert a.drops == {"udp_error": 2}


def test_errors_without_end_are_left_for_the_next_turn():
    a, _ = World().raw_pair("ipip")

    def failing(_):
        def fail(into):
            raise OSError(errno.ECONNREFUSED, "ECONNREFUSED")

        return fail

    assert drained(a, failing)
    assert 2 <= a.drops["udp_error"] <= 100


def test_packets_without_end_are_left_for_the_next_turn():
    world = World()
    a, b = world.raw_pair("ipip")
    flight = Flight((b.addresses[0], 0), (a.addresses[0], 0), genuine(b, a, size=1000), protocol=IPIP)

    def endless(receive):
        def receive_more(into):
            receive.__self__.inbox.extend([flight] * 64)
            return receive(into)

        return receive_more

    assert drained(a, endless)
    assert 512 * 1024 <= sum(map(len, a.received)) < 2 * 512 * 1024


# What a second receive finds in the rows of the first


def twice(world, a, payloads, **how):
    """Let *payloads* arrive twice; return the number of writes by which they arrived the second time."""
    arrive(world, a, *payloads, **how)
    a.received.clear()
    before = len(a.tun.writes)
    arrive(world, a, *payloads, **how)
    return len(a.tun.writes) - before


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_packets_of_one_flow_enter_in_one_write(build, count):
    world = World()
    a, b = world.raw_pair("ipip")
    whole = build(bytes(count * 500), source=b.inner(), destination=a.inner())
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 500))

    assert twice(world, a, sent, source=b.addresses[0]) == 1

    assert a.received == sent


def test_a_shorter_packet_ends_a_train_whatever_lay_in_its_row():
    world = World()
    a, b = world.raw_pair("ipip")
    whole = packets.tcp(b"\xa5" * 4000, source=b.inner(), destination=a.inner())
    for _ in range(2):  # the second time rows have the size that the first had
        arrive(
            world, a, *packets.kernel_segments(*packets.as_super_packet(whole, 400)), source=b.addresses[0]
        )
    whole = packets.tcp(b"\x5a" * 1001, source=b.inner(), destination=a.inner())
    train = packets.kernel_segments(*packets.as_super_packet(whole, 400))
    alone = genuine(b, a, size=40)
    a.received.clear()
    before = len(a.tun.writes)

    arrive(world, a, *train, alone, source=b.addresses[0])

    assert a.received == [*train, alone]
    assert len(a.tun.writes) - before == 2


def test_packets_that_are_just_as_large_as_a_row_may_be_enter_in_one_write():
    world = World()
    a, b = world.raw_pair("ipip")
    segment = LARGEST_ROW - 20 - 40
    whole = genuine(b, a, size=3 * segment, tcp=True)

    assert (
        twice(
            world, a, packets.kernel_segments(*packets.as_super_packet(whole, segment)), source=b.addresses[0]
        )
        == 1
    )


def test_a_stranger_s_packet_in_their_receive_keeps_them_not_from_entering_in_one_write():
    world = World()
    a, b = world.raw_pair("ipip")
    segment = LARGEST_ROW - 20 - 40
    train = packets.kernel_segments(
        *packets.as_super_packet(genuine(b, a, size=3 * segment, tcp=True), segment)
    )
    at = (a.addresses[0], 0)
    flights = [Flight((STRANGER, 0), at, train[0], protocol=IPIP)]
    flights += [Flight((b.addresses[0], 0), at, packet, protocol=IPIP) for packet in train]

    for _ in range(2):
        writes = len(a.tun.writes)
        for flight in flights:
            world.network.send(flight)
        world.run(0.1)

    assert (len(a.tun.writes) - writes, a.received) == (1, train * 2)
    assert a.drops == {"outer_source": 2}


def test_packets_beside_a_tunnel_with_checksums_enter_in_one_write():
    world = World()
    a, b, c = (world.node(name) for name in "abc")
    a.know_raw(c, "gre", endpoint=(b.addresses[0], 0), identifier=9, has_checksum=True)
    a.know_raw(b, "gre", identifier=7)
    header = bytes.fromhex("2000080000000007")
    train = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=4000, tcp=True), 400))

    payloads = [header + packet for packet in train]
    assert twice(world, a, payloads, source=b.addresses[0], protocol=GRE) == 1

    assert a.received == train


@pytest.mark.parametrize("beyond", [-1, 0, 1, 500])
def test_packets_about_as_large_as_a_row_may_be_arrive_however_many_come_at_once(beyond):
    world = World()
    a, b = world.raw_pair("ipip")
    sent = [genuine(b, a, size=LARGEST_ROW - 20 - 28 + beyond)] * 3

    for _ in range(2):
        arrive(world, a, *sent, source=b.addresses[0])

    assert a.received == sent * 2


@pytest.mark.parametrize("name", ["ipip", "gre"])
@pytest.mark.parametrize("count", [1, 2])
def test_packets_of_nothing_are_refused_and_counted(name, count):
    world = World()
    a, b = world.raw_pair(name)

    for _ in range(2):
        arrive(world, a, *[b""] * count, source=b.addresses[0], protocol=GRE if name == "gre" else IPIP)

    assert a.received == []
    assert a.drops.total() == 2 * count


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("path_mtu", "most"), [(1300, 1300), (WIDE, 1420)])
def test_a_syn_that_comes_announces_no_more_than_the_way_back_and_the_tun_take(
    world, path_mtu, most, version, is_partial
):
    a, b = world.raw_pair("ipip")
    a.peer().path.mtu = path_mtu
    packet = syn(8960, version, source=b.inner(version), destination=a.inner(version))

    arrive(
        world,
        a,
        unfinished(packet) if is_partial else packet,
        source=b.addresses[0],
        protocol=IPIP if version == 4 else IPV6,
    )

    (got,) = a.received
    assert mss_of(got) == most - (40 if version == 4 else 60)
    assert packets.is_l4_checksum_right(got)


def test_a_packet_that_comes_alone_is_counted_with_when_it_came(world):
    a, b = world.raw_pair("gre", identifier=7)
    packet = bytes.fromhex("2000080000000007") + genuine(b, a)

    arrive(world, a, packet, source=b.addresses[0], protocol=GRE)

    peer = a.peer()
    assert (peer.traffic.rx_packets, peer.traffic.rx_bytes) == (1, len(packet))
    assert peer.contact.last_received == pytest.approx(world.clock.now - 0.1 + world.network.delay)


@pytest.mark.parametrize(
    ("error", "reason"), [(BlockingIOError(), "tun_full"), (OSError(5, "EIO"), "tun_refused")]
)
@pytest.mark.parametrize("size", [100, 3000])
def test_what_the_tun_does_not_take_is_counted_for_its_sender(size, error, reason):
    world = World()
    a, b = world.raw_pair("ipip")
    for _ in range(2):  # the second time rows have the size that the first had
        b.send_super(a, size, 1360)
        world.run(1)
    a.tun.error = error

    b.send_super(a, size, 1360)
    world.run(1)

    assert a.peer().drops == {reason: 1}


@pytest.mark.parametrize("tos", [0x48, 0x60, 0xFC])
def test_a_syn_is_one_whatever_its_class(world, tos):
    a, b = world.raw_pair("ipip")

    arrive(world, a, syn(8960, source=b.inner(), destination=a.inner(), tos=tos), source=b.addresses[0])

    assert mss_of(a.received[0]) == a.mtu - 40


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_packet_whose_end_is_missing_is_refused_although_that_would_have_been_zeros(version, place):
    world = World()
    a, b = world.raw_pair("ipip")
    protocol = IPIP if version == 4 else IPV6
    whole = genuine(b, a, size=2000, tcp=True, version=version)
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 400))
    arrive(world, a, *sent, source=b.addresses[0], protocol=protocol)
    a.received.clear()
    cut = [packet[:-20] if row == place else packet for row, packet in enumerate(sent)]

    arrive(world, a, *cut, source=b.addresses[0], protocol=protocol)

    del sent[place]
    assert a.received == sent
    assert a.drops == {"inner_length": 1}


@pytest.mark.parametrize("tos", [0xFC, 0x04, ECT_0])
def test_packets_of_several_flows_in_one_receive_are_each_as_they_were_and_counted(tos):
    world = World()
    a, b = world.raw_pair("ipip")
    sent = [genuine(b, a, size=100, ports=(4000 + number, 80), tos=ECT_1) for number in range(6)]

    for _ in range(2):
        arrive(world, a, *sent, source=b.addresses[0], tos=tos)

    assert a.received == sent * 2
    assert not a.drops
    assert a.peer().traffic.rx_packets == 12
    assert a.peer().contact.last_received == pytest.approx(world.clock.now - 0.1 + world.network.delay)
