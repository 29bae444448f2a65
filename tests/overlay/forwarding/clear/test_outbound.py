from __future__ import annotations

import errno
import math
import socket
import struct

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding.clear.outbound import HEEDED_TIME
from overlay.forwarding.peer import WIDE
from overlay.forwarding.underlay.batching import PROBE
from overlay.link import messages as link
from tests import packets
from tests.network import FakeRaw
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import CLEAR_PORT, World


@pytest.fixture(params=[True, False], ids=["gro", "no gro"])
def world(request):
    return World(has_gro=request.param)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_arrive_unchanged_and_as_they_are_on_the_wire(world, version):
    a, b = world.clear_pair()

    sent = a.send(b, 5, version=version)
    world.run(1)

    assert b.received == sent
    assert [size for *_, size in world.network.sent] == [len(packet) for packet in sent]
    assert not b.drops
    assert (a.peer().traffic.tx_packets, b.peer().traffic.rx_packets) == (5, 5)
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes == sum(map(len, sent))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (size, segment)
        for size in (2, 1400, 30001, 60000)
        for segment in (1360, 1361, 536, 1)
        if size // segment <= 1000  # a kernel sends no more at once
    ],
)
def test_a_super_packet_arrives_as_its_segments(world, version, size, segment):
    a, b = world.clear_pair()

    sent = a.send_super(b, size, segment, version)
    world.run(1)

    assert b.received == sent
    assert not a.drops + b.drops


def test_a_super_packet_leaves_in_one_send_and_enters_in_one_write():
    world = World()
    a, b = world.clear_pair()

    sent = a.send_super(b, 30 * 1360)
    world.run(1)

    assert (len(sent), sum(each.sends for each in a.clear_sockets), len(b.tun.writes)) == (30, 1, 1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("size", "writes"),
    [(47 * 1360, 1), (47 * 1360 - 1, 1), (47 * 1360 + 2, 1), (60 * 700, 1), (80 * 700, 2)],
)
def test_a_super_packet_that_takes_several_receives_enters_in_as_few_writes_as_can_be(version, size, writes):
    world = World()
    a, b = world.clear_pair()
    b.gro_count = 24

    sent = a.send_super(b, size, 1360 if size > 60_000 else 700, version)
    world.run(1)

    assert b.received == sent
    assert len(b.tun.writes) == writes


def test_super_packets_that_end_with_psh_are_each_a_write_of_its_own():
    world = World()
    a, b = world.clear_pair()
    b.gro_count = 10

    sent = []
    for number in range(4):
        sent += a.send_super(b, 20 * 1360, flags=packets.ACK | packets.PSH, sequence=number * 20 * 1360)
    world.run(1)

    assert b.received == sent
    assert len(b.tun.writes) == 4


def test_a_packet_for_a_peer_without_an_address_is_answered_with_unreachable(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, endpoint=None)

    a.send(b)
    world.run(1)

    assert a.drops == {"no_endpoint": 1}
    assert [packets.protocol_of(packet) for packet in a.received] == [1]


def test_our_own_datagram_on_its_way_into_its_tunnel_is_a_loop(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, subnets=["192.0.2.0/24"])
    datagram = packets.udp(
        b"x", ports=(CLEAR_PORT, CLEAR_PORT), source=a.addresses[0], destination=b.addresses[0]
    )

    a.tun.outgoing.append(packets.PLAIN + datagram)
    world.run(1)

    assert (a.drops, world.network.sent) == ({"loop": 1}, [])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mark", range(4))
def test_the_inner_ecn_field_is_the_outer_one(world, version, mark):
    a, b = world.clear_pair()
    seen = []
    world.network.mark = lambda flight: (seen.append(flight.tos), flight.tos)[1]

    a.send(b, version=version, tos=mark)
    world.run(1)

    assert seen == [mark]
    assert not b.drops


# Without ports

KINDS = [("ipip", None), ("gre", None), ("gre", 7)]


@pytest.fixture
def seen(world):
    """The flights of a story."""
    flights = []
    world.network.mark = lambda flight: (flights.append(flight), flight.tos)[1]
    return flights


@pytest.mark.parametrize(("name", "key"), KINDS)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("inherits", [False, True])
def test_the_outer_header_has_what_the_table_says(world, seen, name, key, outer, version, inherits):
    a, b = world.raw_pair(name, outer=outer, identifier=key)
    a.tell(link.SetNode(a.mtu, False, [], inherits))

    for tos in (*range(4), 0xB8, 0xB9, 0xFF):
        a.send(b, version=version, tos=tos, ttl=9)
        world.run(1)

        flight = seen.pop()
        assert not seen
        assert (flight.tos, flight.ttl) == (tos, 9 if inherits else 0)
        assert flight.protocol == {"ipip": {4: 4, 6: 41}[version], "gre": 47}[name]
    assert not b.drops


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize(("fragment", "may_be_cut"), [(0, True), (0x4000, False)])
@pytest.mark.parametrize("is_super", [False, True])
def test_a_packet_may_be_cut_outside_as_inside(world, seen, outer, fragment, may_be_cut, is_super):
    a, b = world.raw_pair("ipip", outer=outer)

    if is_super:
        a.send_super(b, 5000, fragment=fragment)
    else:
        a.send(b, fragment=fragment)
    a.send(b, version=6)
    world.run(1)

    assert {flight.may_be_cut for flight in seen if flight.protocol == 4} == {may_be_cut}
    assert {flight.may_be_cut for flight in seen if flight.protocol == 41} == {False}


@pytest.mark.parametrize("version", [4, 6])
def test_the_ttl_is_inherited_by_datagrams_in_the_clear_and_by_nothing_sealed(world, version):
    a, b = world.clear_pair()
    controls = []
    for each in a.clear_sockets:
        send = each.sendmsg
        each.sendmsg = lambda buffers, ancillary, flags, at, send=send: (
            controls.append(ancillary),
            send(buffers, [row for row in ancillary if row[1] not in {2, 52}], flags, at),
        )
    a.tell(link.SetNode(a.mtu, False, [], True))

    a.send(b, version=version, ttl=9, tos=2)
    world.run(1)

    assert len(controls) == 1
    assert {(0, 2, b"\x09\0\0\0"), (0, 1, b"\x02\0\0\0")} <= set(controls[0])
    c, d = (world.node(name) for name in "cd")
    c.know(d)
    d.know(c)
    c.tell(link.SetNode(c.mtu, False, [], True))
    sent = c.send(d, ttl=9)
    world.run(1)
    assert d.received == sent  # a socket of a node in memory ignores the TTL


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pair", ["clear_pair", "raw_pair"])
def test_a_packet_without_life_is_not_carried(world, version, pair):
    a, b = world.clear_pair() if pair == "clear_pair" else world.raw_pair("ipip")

    a.send(b, 2, version=version, ttl=0)
    world.run(1)

    assert (a.drops, b.received) == ({"ttl": 2}, [])


def test_our_own_packet_on_its_way_into_its_tunnel_is_a_loop(world):
    a, b = world.node("a"), world.node("b")
    a.know_raw(b, "ipip", subnets=["192.0.2.0/24"])
    ends = {"source": a.addresses[0], "destination": b.addresses[0]}

    for protocol in (4, 41, 6):
        a.tun.outgoing.append(packets.PLAIN + packets.ipv4(bytes(40), protocol=protocol, **ends))
    world.run(1)

    assert (a.drops, len(world.network.sent)) == ({"loop": 2}, 1)


@pytest.mark.parametrize("room", [0, 1, 20, 28])
@pytest.mark.parametrize("size", [30 * 1360, 60000, 30001])
def test_what_a_full_socket_does_not_take_leaves_later_and_in_order(world, room, size):
    a, b = world.raw_pair("gre", identifier=7)
    sending = [each for each in a.raw_sockets["gre"] if each.role == Role.SENDS_WHOLE]
    for each in sending:
        each.room = room
    before = a.send(b, 3, size=100)
    segments = a.send_super(b, size)
    after = a.send(b, 3, size=200)
    for _ in range(3):
        a.turn()
    assert a.core.sender.is_holding

    for each in sending:
        each.room = math.inf
    world.run(1)

    assert b.received == before + segments + after
    assert not a.drops + b.drops
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes


def test_a_packet_that_does_not_fit_is_counted_and_those_behind_it_leave(world):
    a, b = world.raw_pair("ipip")
    for each in a.raw_sockets["ipip"]:
        each.errors.append(errno.EMSGSIZE)

    sent = a.send(b, 4)
    world.run(1)

    assert (a.drops, b.received) == ({"too_big": 1}, sent[1:])


def test_small_packets_of_any_size_leave_in_one_call(world):
    a, b = world.raw_pair("ipip")

    sent = [packet for size in (10, 300, 20, 1000) for packet in a.send(b, 3, size=size)]
    world.run(1)
    before = sum(each.sends for each in a.sockets)
    sent += [packet for size in (10, 300, 20, 1000) for packet in a.send(b, 3, size=size)]
    world.run(1)

    assert b.received == sent
    assert sum(each.sends for each in a.sockets) - before <= 2


def test_a_peer_that_moves_to_the_other_family_is_reached_there(world):
    a, b = world.raw_pair("ipip")
    sent = a.send(b)
    world.run(1)

    a.tell(link.SetEndpoint(1, (b.addresses[1], 0, 0, 0), "dns"))
    b.tell(link.SetEndpoint(1, (a.addresses[1], 0, 0, 0), "dns"))
    sent += a.send(b)
    world.run(1)

    assert b.received == sent


def test_new_sockets_take_the_place_of_the_old_at_once(world):
    a, b = world.raw_pair("ipip")
    a.send(b)
    world.run(1)
    old = a.raw_sockets["ipip"]
    a.raw_sockets["ipip"] = [FakeRaw(a, each.family, each.protocol, each.role) for each in old]

    a.open_raw("ipip")
    a.send(b, 2)
    b.send(a)
    world.run(1)

    assert all(each.is_closed for each in old)
    assert (len(b.received), len(a.received)) == (3, 1)


def test_without_a_socket_of_its_family_a_peer_is_not_reached(world):
    a, b = world.node("a"), world.node("b")
    a.know_raw(b, "ipip")
    a.raw_sockets["ipip"] = [each for each in a.raw_sockets["ipip"] if each.family != socket.AF_INET]
    a.open_raw("ipip")

    a.send_super(b, 5000)
    world.run(1)

    assert a.drops == {"no_endpoint": 4}


def take_all(node, *, is_full):
    """Make the kernel accept nothing of what *node* sends, or everything."""
    for each in node.sockets:
        if hasattr(each, "room"):
            each.room = 0 if is_full else math.inf
        else:
            each.is_full = is_full


@pytest.mark.parametrize("name", ["wireguard", "udp", "vxlan", "ipip", "gre"])
def test_a_train_that_the_kernel_did_not_take_is_not_overwritten_by_the_next_super_packet(name):
    """The first, no larger than the MTU, is read as a packet; what is read after it arrives in its buffer."""
    world = World()
    make = {"wireguard": world.pair, "udp": world.clear_pair}.get(name)
    if make is None:
        make = (
            (lambda: world.clear_pair(encapsulation=name))
            if name == "vxlan"
            else (lambda: world.raw_pair(name))
        )
    a, b = make()
    a.send(b)
    world.run(1)
    b.received.clear()
    sent = [*a.send_super(b, 1000, 400), *a.send_super(b, 20000, 1000)]
    a.core.outbound.pace._is_single = False
    take_all(a, is_full=True)

    a.turn()
    take_all(a, is_full=False)
    world.run(1)

    assert b.received == sent
    assert not b.drops


WAYS = {
    "udp": lambda world: world.clear_pair(),
    "vxlan": lambda world: world.clear_pair(encapsulation="vxlan"),
    "ipip": lambda world: world.raw_pair("ipip"),
    "gre": lambda world: world.raw_pair("gre", identifier=7),
    "gre with a checksum": lambda world: world.raw_pair("gre", has_checksum=True),
}


@pytest.fixture(params=WAYS)
def way(request):
    """Two unencrypted nodes, of which a reads in batches, on a path with an MTU of 1204 bytes."""
    world = World()
    a, b = WAYS[request.param](world)
    a.send(b)
    world.run(1)
    a.send(b, 3 * PROBE)
    world.run(1)
    b.received.clear()
    a.peer().path.mtu, a.peer().path.due = 1204, math.inf
    return world, a, b


def udp(a, b, size, **ip):
    """Return a packet of *size* bytes that may be fragmented."""
    ends = {"source": a.inner(), "destination": b.inner(), "fragment": 0, **ip}
    return packets.udp(bytes(n % 251 for n in range(size - 28)), **ends)


@pytest.mark.parametrize("is_super", [False, True])
def test_what_is_cut_leaves_behind_what_was_read_before_it(way, is_super):
    world, a, b = way
    first, last = (udp(a, b, 100 + size) for size in (0, 1))
    large = udp(a, b, 1428 if not is_super else 28 + 2 * 1300)
    for packet in (first, large, last):
        whole, virtio = (
            packets.as_super_packet(packet, 1300) if is_super and packet is large else (packet, packets.PLAIN)
        )
        a.tun.outgoing.append(virtio + whole)
    world.run(1)

    assert (b.received[0], b.received[-1]) == (first, last)
    assert len(b.received) == (6 if is_super else 4)
    assert not a.drops + b.drops


def test_packets_of_one_batch_do_not_overwrite_each_other(way):
    world, a, b = way
    sent = [udp(a, b, 100 + 7 * number % 50, identifier=number) for number in range(40)]

    a.tun.outgoing += [packets.PLAIN + packet for packet in sent]
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert a.peer().traffic.tx_packets == 1 + 3 * PROBE + len(sent)
    assert not a.drops + b.drops


@pytest.mark.parametrize("start", [0, 1000])
def test_a_checksum_that_points_outside_its_packet_is_refused_and_counted_each_time(way, start):
    world, a, b = way
    packet, virtio = packets.as_super_packet(udp(a, b, 200), 0)
    a.tun.outgoing += [virtio[:1] + bytes(5) + start.to_bytes(2, "little") + virtio[8:] + packet] * 2
    world.run(1)

    assert (a.drops, b.received) == ({"tun_malformed": 2}, [])


def test_a_super_packet_that_is_none_is_refused_and_counted_each_time(way):
    world, a, b = way
    a.peer().path.mtu = 1 << 17
    packet, _ = packets.as_super_packet(udp(a, b, 3000), 1000)
    a.tun.outgoing += [struct.pack("<BBHHHH", 1, 1, 40, 1000, 20, 16) + packet] * 2
    world.run(1)

    assert (a.drops, b.received) == ({"tun_gso": 2}, [])


def test_a_mark_is_carried_outside_by_a_super_packet_and_by_one_that_is_alone(way, seen_of):
    world, a, b = way
    flights = seen_of(world)

    a.send_super(b, 4000, 1000, tos=2)
    a.send(b, tos=2)
    world.run(1)

    assert {flight.tos & 3 for flight in flights} == {2}
    assert a.peer().traffic.tx_packets == 1 + 3 * PROBE + 5
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes


@pytest.fixture
def seen_of():
    def watch(world):
        flights = []
        world.network.mark = lambda flight: (flights.append(flight), flight.tos)[1]
        return flights

    return watch


def test_packets_of_one_flow_and_size_leave_in_one_send(way):
    world, a, b = way
    before = sum(each.sends for each in a.sockets)

    sent = [udp(a, b, 300, identifier=number) for number in range(12)]
    a.tun.outgoing += [packets.PLAIN + packet for packet in sent]
    world.run(1)

    assert b.received == sent
    assert sum(each.sends for each in a.sockets) - before == 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_partial", [False, True])
def test_a_syn_announces_no_more_than_the_path_takes(way, version, is_partial):
    world, a, b = way
    packet = syn(1460, version, source=a.inner(version), destination=b.inner(version))
    virtio = packets.PLAIN
    if is_partial:
        packet, virtio = packets.as_super_packet(packet, 0)
        virtio = virtio[:1] + bytes(5) + virtio[6:]

    a.tun.outgoing.append(virtio + packet)
    world.run(1)

    (got,) = b.received
    assert mss_of(got) == (1204 - 40 if version == 4 else 1280 - 60)  # every link carries 1280 bytes of IPv6
    assert packets.is_l4_checksum_right(got)


def test_a_syn_announces_no_more_than_the_tun_takes_where_the_path_takes_more(way):
    world, a, b = way
    a.peer().path.mtu = 1 << 17

    a.tun.outgoing.append(packets.PLAIN + syn(8960, source=a.inner(), destination=b.inner()))
    world.run(1)

    assert mss_of(b.received[0]) == a.mtu - 40


def test_the_kernel_is_asked_for_the_path_from_the_moment_on_that_it_is_due(way):
    world, a, b = way
    a.peer().path.due = world.clock.now
    before = sum(each.questions for each in a.paths)

    a.send(b, 2)
    world.run(0)

    assert sum(each.questions for each in a.paths) - before == 1


def tell(node, other, mtu):
    """Let an ICMP error pass *node* on its way to *other*, that no more than *mtu* bytes of a packet of that fit."""
    quoted = packets.udp(b"x", source=other.inner(), destination="192.0.2.99")
    error = struct.pack("!BBHI", 3, 4, 0, mtu) + quoted[:28]
    node.tun.outgoing.append(
        packets.PLAIN + packets.ipv4(error, protocol=1, source=node.inner(), destination=other.inner())
    )
    node.world.run(1)


def test_the_least_that_icmp_errors_tell_on_their_way_to_a_peer_is_heeded_for_a_while(way):
    world, a, b = way
    assert a.peer().unsealed.segment_limit == WIDE

    limits = []
    for mtu in (1300, 1000, 1100, 68):
        tell(a, b, mtu)
        limits.append(a.peer().unsealed.segment_limit)
    assert limits == [1300, 1000, 1000, 576]
    told_at = world.clock.now - 1
    for seconds, limit in ((HEEDED_TIME - 0.5, 576), (HEEDED_TIME, WIDE)):
        world.run(told_at + seconds - world.clock.now)
        a.send(b)
        world.run(0)
        assert a.peer().unsealed.segment_limit == limit


def test_a_super_packet_leaves_from_the_port_of_its_flow():
    world = World()
    a, b = world.clear_pair(encapsulation="vxlan")
    ports = {}
    for number in range(12):
        flights = []
        world.network.lose = flights.append
        ends = {"source": a.inner(), "destination": b.inner(), "ports": (4000 + number, 80)}
        a.tun.outgoing.append(packets.PLAIN + packets.tcp(b"x", **ends))
        whole, virtio = packets.as_super_packet(packets.tcp(bytes(4000), **ends), 1360)
        a.tun.outgoing.append(virtio + whole)
        world.run(0.1)
        ports[number] = {flight.source[1] for flight in flights}

    assert all(len(each) == 1 for each in ports.values())
    assert len(set.union(*ports.values())) > 3


def test_the_tun_may_have_another_mtu(way):
    world, a, b = way
    a.peer().path.mtu = 1 << 17
    sent = a.send_super(b, 8000, 1360)
    world.run(1)
    a.set_node(9000)
    b.set_node(9000)
    a.peer().path.due = math.inf

    sent += a.send_super(b, 30_000, 8000)
    world.run(1)

    assert b.received == sent


def test_a_packet_that_ends_before_an_icmp_error_would_begin_tells_nothing_whatever_lies_behind_it(way):
    world, a, b = way
    tell(a, b, 1000)
    a.peer().unsealed.segment_limit = WIDE

    bare = packets.ipv4(b"", protocol=1, source=a.inner(), destination=b.inner())
    a.tun.outgoing.append(packets.PLAIN + bare)
    world.run(1)

    assert a.peer().unsealed.segment_limit == WIDE


@pytest.mark.parametrize(("size", "passes"), [(1204, True), (1205, False)])
@pytest.mark.parametrize("is_super", [False, True])
def test_what_must_not_be_cut_passes_as_far_as_the_path_takes_it_and_else_its_sender_is_told(
    way, size, passes, is_super
):
    world, a, b = way
    whole, virtio = udp(a, b, size, fragment=0x4000), packets.PLAIN
    sent = [whole]
    if is_super:
        whole, virtio = packets.as_super_packet(udp(a, b, 28 + 2 * (size - 28), fragment=0x4000), size - 28)
        sent = packets.kernel_segments(whole, virtio)

    a.tun.outgoing.append(virtio + whole)
    world.run(1)

    assert b.received == (sent if passes else [])
    assert a.drops == ({} if passes else {"path_mtu": 1})
    assert len(a.received) == (not passes)
