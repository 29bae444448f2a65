"""Which packets of the tun are datagrams of our own to a peer; test_core and others test all others."""

from __future__ import annotations

import struct

import pytest

from overlay.forwarding.bulk.size import WHOLE, UnitSize
from overlay.forwarding.underlay.batching import PROBE
from overlay.link import messages as link
from overlay.wire.bulk import AES_256_GCM
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
    """Let b send *packet*; return the drops, and how many packets left."""
    before, sent = b.drops, b.peer().traffic.tx_packets
    b.tun.outgoing.append(packets.PLAIN + packet)
    b.world.run(0.1)
    return b.drops - before, b.peer().traffic.tx_packets - sent


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


# Common to all outbound paths


class Ways:
    """Node a with sessions with b and c; packets for the other version's default route go to c."""

    def __init__(self, *, ciphers=()):
        self.world = World(ciphers=ciphers)
        self.a, self.b, self.c = (self.world.node(name) for name in "abc")
        for other in (self.b, self.c):
            self.a.know(other)
            other.know(self.a)
            self.a.send(other)
            self.world.run(1)
            self.a.send_super(other, 3000)
            self.world.run(1)
            other.send(self.a)
            self.world.run(1)
            self.a.send(other, 3 * PROBE)  # batches are taken
            self.world.run(1)
        self.a.route([("0.0.0.0/0", 2), ("::/0", 2)])
        for node in (self.a, self.b, self.c):
            node.received.clear()
        self.outer = []
        self.world.network.lose = lambda flight: bool(self.outer.append((flight.kind, flight.tos)))
        assert not self.a.drops


def singly(ways, version, tos):
    return ways.a.send(ways.b, version=version, tos=tos)


def alike(ways, version, tos):
    return ways.a.send(ways.b, 9, version=version, tos=tos)


def of_several_sizes(ways, version, tos):
    return [each for size in (50, 100, 33) for each in ways.a.send(ways.b, 1, size, version, tos=tos)]


def in_segments(ways, version, tos):
    return ways.a.send_super(ways.b, 5000, 1300, version, tos=tos)


def in_segments_for_a_narrow_path(ways, version, tos):
    ways.a.peer().path.mtu = 1200
    return ways.a.send_super(ways.b, 5000, 1100, version, tos=tos)


def in_parts_of_units(ways, version, tos):
    ways.a.peer().keypairs.current.bulk.size = UnitSize(4)
    return ways.a.send_super(ways.b, 20_000, 1300, version, tos=tos)


def in_a_whole_unit(ways, version, tos):
    ways.a.peer().keypairs.current.bulk.size = UnitSize(WHOLE)
    return ways.a.send_super(ways.b, 20_000, 1300, version, tos=tos)


def in_a_trial(ways, version, tos):
    size = ways.a.peer().keypairs.current.bulk.size = UnitSize(WHOLE)
    for _ in range(40):
        size.silence(ways.world.clock.now)
    ways.world.run(30)
    ways.outer.clear()
    return ways.a.send_super(ways.b, 20_000, 1300, version, tos=tos)


PLAIN = [singly, alike, of_several_sizes, in_segments, in_segments_for_a_narrow_path]
UNITS = [in_parts_of_units, in_a_whole_unit, in_a_trial]


@pytest.mark.parametrize("send_by", [*PLAIN, *UNITS], ids=lambda each: each.__name__)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tos", [0x00, 0x01, 0xBA])
def test_packets_go_to_their_peer_with_their_ecn_field_outside(send_by, version, tos):
    ways = Ways(ciphers=[AES_256_GCM] if send_by in UNITS else ())

    sent = send_by(ways, version, tos)
    ways.world.run(0.01)
    marks = {mark for kind, mark in ways.outer if kind in {"data", "fragment"}}
    ways.world.run(0.1)

    assert ways.b.received == sent
    assert ways.c.received == []
    assert marks == {tos & 3}
    assert not ways.a.drops


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize(("start", "offset"), [(19, 6), (1000, 6), (20, 2000), (65535, 65535)])
def test_a_checksum_outside_the_packet_is_refused_whatever_the_path_takes(version, count, start, offset):
    ways = Ways()
    for mtu in (100, 1500):
        ways.a.peer().path.mtu = mtu
        before = ways.a.drops
        for packet in [
            packets.udp(
                bytes(200), version=version, source=ways.a.inner(version), destination=ways.b.inner(version)
            )
        ] * count:
            ways.a.tun.outgoing.append(struct.pack("<BBHHHH", 1, 0, 0, 0, start, offset) + packet)
        ways.world.run(0.1)

        assert ways.a.drops - before == {"tun_malformed": count}
    assert ways.b.received == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [packets.udp, packets.tcp])
def test_a_partial_checksum_is_finished_before_a_packet_is_cut_for_a_narrow_path(version, make):
    ways = Ways()
    ways.a.peer().path.mtu = 600
    ends = {"source": ways.a.inner(version), "destination": ways.b.inner(version)}
    whole = make(bytes(range(256)) * 4, version=version, **ends, **({"fragment": 0} if version == 4 else {}))
    packet, virtio = packets.as_super_packet(whole, 100)
    ways.a.tun.outgoing.append(
        struct.pack("<BBHHHH", 1, 0, 0, 0, packets.l4_start(whole), virtio[8]) + packet
    )

    ways.world.run(0.1)

    if version == 4:
        assert len(ways.b.received) == 2
        assert b"".join(each[20:] for each in ways.b.received) == whole[20:]
    else:
        assert ways.b.received == [whole]  # IPv6 is not cut by routers, and this passes whole up to 1280


def test_packets_that_waited_and_are_more_than_the_arena_holds_leave_in_their_order():
    world = World()
    a, b = world.pair()
    sent = [packet for size in (1300, 1200) for packet in a.send(b, 90, size)]
    world.run(1)

    assert b.received == sent
    assert a.drops == {}


@pytest.mark.parametrize("sizes", [[8000] * 64, [100, *[8000] * 63], [*[100] * 40, *[8000] * 40]])
def test_large_packets_that_are_more_than_the_arena_holds_leave_in_their_order(sizes):
    world = World()
    a, b = world.pair()
    for node in (a, b):
        node.set_node(9000)
    a.send(b)
    world.run(1)
    a.send(b, 3 * PROBE)  # batches are taken
    world.run(1)
    b.received.clear()

    sent = [packet for size in sizes for packet in a.send(b, 1, size)]
    world.run(1)

    assert b.received == sent


def test_units_that_come_together_are_reported_once():
    ways = Ways(ciphers=[AES_256_GCM])
    ways.a.peer().keypairs.current.bulk.size = UnitSize(WHOLE)

    def reported():
        before = len([1 for _, who, kind, size in ways.world.network.sent if (who, kind) == ("b", "data")])
        for _ in range(5):
            ways.a.send_super(ways.b, 20_000)
            ways.world.run(0.001)
        ways.world.run(1)
        return (
            len([1 for _, who, kind, size in ways.world.network.sent if (who, kind) == ("b", "data")])
            - before
        )

    assert reported() == 1
    assert ways.b.peer().contact.reporting is None
    assert reported() == 1


@pytest.mark.parametrize("version", [4, 6])
def test_segments_over_the_path_s_mtu_are_cut_or_pass_as_packets_do(version):
    ways = Ways()
    ways.a.peer().path.mtu = 600
    before = ways.a.peer().traffic.tx_packets
    sent = ways.a.send_super(ways.b, 5000, 1100, version, tos=2, **({"fragment": 0} if version == 4 else {}))

    ways.world.run(0.1)

    got = ways.b.received
    if version == 4:
        assert len(got) == 2 * 4 + 2
        assert all(len(each) <= 600 for each in got)
        got = [one[:20] + one[20:] + two[20:] for one, two in zip(got[::2], got[1::2], strict=True)]
        assert [each[20:] for each in got] == [each[20:] for each in sent]
        assert [each[4:6] for each in got] == [each[4:6] for each in sent]
    else:
        assert got == sent  # up to 1280 bytes, IPv6 carries them whole, in datagrams that may be fragmented
    assert {mark for kind, mark in ways.outer if kind == "data"} == {2}
    assert ways.a.peer().traffic.tx_packets > before
    assert not ways.a.drops


@pytest.mark.parametrize("send_by", PLAIN, ids=lambda each: each.__name__)
def test_counters_go_up_by_one(send_by):
    ways, flights = Ways(), []
    ways.world.network.lose = lambda flight: bool(flights.append(flight.datagram))
    first = ways.a.peer().keypairs.current.counter

    for _ in range(2):
        send_by(ways, 4, 0)
        ways.world.run(0.01)
        ways.a.core.outbound.send_payload(ways.a.peer(), ways.a.peer().keypairs.current, b"")

    counters = [int.from_bytes(each[8:16], "little") for each in flights if each[:1] == b"\4"]
    assert counters == [*range(first, ways.a.peer().keypairs.current.counter)]
    assert len(counters) >= 4


@pytest.mark.parametrize("ciphers", [(), (AES_256_GCM,)])
def test_what_we_say_ourselves_is_marked_by_nobody_and_never_cut(ciphers):
    world = World(ciphers=ciphers)
    a, b = world.pair(keepalive=2.0)
    flights = []
    world.network.lose = lambda flight: bool(flights.append(flight))
    world.run(1)
    for node, other in ((a, b), (b, a)):
        node.send_super(other, 20_000)
        world.run(1)
    world.run(30)

    assert {flight.kind for flight in flights} >= {"initiation", "response", "keepalive"}
    assert {flight.tos for flight in flights} == {0}
    assert ciphers or not any(flight.may_be_cut for flight in flights)  # where probes tell, all may be


@pytest.mark.parametrize("is_tap", [False, True])
def test_the_mtu_of_the_start_holds_until_another_is_told(is_tap):
    world = World(is_tap=is_tap)
    a, b = world.pair()
    a.set_node = lambda: None
    a.restart()
    ends = {"source": a.inner(), "destination": b.inner()}
    whole = packets.tcp(bytes(20_000), **ends)

    if is_tap:
        packet, virtio = packets.as_super_frame(whole, 1300)
        sent = packets.kernel_frames(a.send_frame(b.mac, packet, virtio=virtio), virtio)
        sent.append(a.send_frame(b.mac, packets.udp(bytes(1000), **ends)))
    else:
        sent = a.send_super(b, 20_000, 1300) + a.send(b, 1, 1000)
    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, 9])
def test_a_syn_whose_checksum_is_unfinished_is_clamped_and_finished(version, count):
    ways = Ways()
    ends = {"source": ways.a.inner(version), "destination": ways.b.inner(version)}
    option = b"\2\4\xff\xff"
    for _ in range(count):
        whole = packets.tcp(b"", version=version, flags=packets.SYN, tcp_options=option, **ends)
        packet, virtio = packets.as_super_packet(whole, 100)
        start = packets.l4_start(whole)
        ways.a.tun.outgoing.append(struct.pack("<BBHHHH", 1, 0, 0, 0, start, virtio[8]) + packet)

    ways.world.run(0.1)

    most = struct.pack("!H", ways.a.mtu - (40 if version == 4 else 60))
    clamped = packets.tcp(b"", version=version, flags=packets.SYN, tcp_options=option[:2] + most, **ends)
    assert ways.b.received == [clamped] * count


class Icmp:
    """A raw ICMP socket."""

    def __init__(self):
        self.sent, self.is_closed = [], False

    def sendto(self, message, address):
        self.sent.append((message[:2], address))

    def close(self):
        self.is_closed = True


def test_errors_over_ipv4_leave_by_the_socket_that_came_last():
    ways = Ways()
    first, second = Icmp(), Icmp()
    for icmp in (first, second):
        ways.a.tell(link.SetNode(ways.a.mtu, True, []), [icmp])

    ways.a.tun.outgoing.append(
        packets.PLAIN + packets.udp(b"x", source="10.9.9.9", destination=ways.a.inner())
    )
    ways.world.run(0.1)

    assert (first.sent, second.sent) == ([], [(b"\3\1", ("10.9.9.9", 0))])
    assert (first.is_closed, second.is_closed) == (True, False)
    assert ways.a.received == []


def test_each_super_packet_that_cannot_be_cut_is_counted():
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    whole = packets.tcp(bytes(4000), source=a.inner(), destination=b.inner())
    packet, virtio = packets.as_super_packet(whole, 1000)

    for _ in range(3):
        a.tun.outgoing.append(virtio[:4] + bytes(2) + virtio[6:] + packet)  # into segments of nothing
    world.run(1)

    assert a.drops == {"tun_gso": 3}


@pytest.mark.parametrize("count", [1, 9])
def test_packets_alike_for_nobody_are_each_counted(count):
    ways = Ways()
    ways.a.route(remove=["0.0.0.0/0", "::/0"])
    for version, nobody in ((4, "203.0.113.5"), (6, "2001:db8:ffff::5")):
        packet = packets.udp(b"x" * 60, version=version, source=ways.a.inner(version), destination=nobody)
        ways.a.tun.outgoing += [packets.PLAIN + packet] * count
        ways.world.run(0.1)

    assert ways.a.drops == {"no_peer": 2 * count}


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize("version", [4, 6])
def test_a_super_packet_whose_header_tells_nothing_but_its_kind_leaves_as_its_segments(version, make):
    ways = Ways()
    a, b = ways.a, ways.b
    ways.world.network.lose = lambda _: False
    whole = make(bytes(3000), version=version, source=a.inner(version), destination=b.inner(version))
    packet, virtio = packets.as_super_packet(whole, 1000)
    bare = struct.pack("<BBHHHH", 0, virtio[1], 0, 1000, packets.l4_start(whole), 0)

    a.tun.outgoing.append(bare + packet)
    ways.world.run(1)

    assert b.received == packets.kernel_segments(packet, virtio)
