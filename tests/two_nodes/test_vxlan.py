"""Two nodes with VXLAN between them, on a network in memory."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.link import messages as link
from overlay.wire.ip import CE, ECT_0, NOT_ECT
from peers.mac import derived_mac
from tests import packets
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.overlay.wire.test_neighbours import solicitation
from tests.sim import CLEAR_PORT, SENDERS_PORT, VNI, World

HEADER = b"\x08\0\0\0" + VNI.to_bytes(3, "big") + b"\0"
A, B = derived_mac("a"), derived_mac("b")
KINDS = {4: b"\x08\x00", 6: b"\x86\xdd"}


@pytest.fixture(params=[True, False], ids=["gro", "no gro"])
def world(request):
    return World(has_gro=request.param)


def pair_in(world):
    return world.clear_pair(encapsulation="vxlan")


def framed(packet, *, header=HEADER, to=A, by=B, kind=None):
    return header + to + by + (kind or KINDS[packet[0] >> 4]) + packet


def arrive(world, node, *payloads, source, port=SENDERS_PORT, tos=0):
    for payload in payloads:
        world.network.send(Flight((source, port), (node.addresses[0], CLEAR_PORT), payload, tos))
    world.run(1)


def genuine(sender, receiver, *, size=20, tcp=False, version=4, **ip):
    ends = {"source": sender.inner(version), "destination": receiver.inner(version), "version": version, **ip}
    return packets.tcp(bytes(size), **ends) if tcp else packets.udp(bytes(size), **ends)


def watch(world):
    """Return a list that collects what is sent from now on."""
    flights = []
    world.network.lose = flights.append
    return flights


@pytest.mark.parametrize("version", [4, 6])
def test_packets_arrive_unchanged_in_frames_of_the_two_ends(world, version):
    a, b = pair_in(world)
    flights = watch(world)

    sent = a.send(b, 5, version=version)
    world.run(1)

    assert b.received == sent
    assert [flight.datagram for flight in flights] == [framed(packet, to=B, by=A) for packet in sent]
    assert {flight.destination[1] for flight in flights} == {CLEAR_PORT}
    assert not a.drops + b.drops
    assert (a.peer().traffic.tx_packets, b.peer().traffic.rx_packets) == (5, 5)
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes == sum(len(packet) + 22 for packet in sent)


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
    a, b = pair_in(world)

    sent = a.send_super(b, size, segment, version)
    world.run(1)

    assert b.received == sent
    assert not a.drops + b.drops
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes == sum(len(packet) + 22 for packet in sent)


def test_a_super_packet_leaves_in_one_send_and_enters_in_one_write():
    world = World()
    a, b = pair_in(world)

    sent = a.send_super(b, 30 * 1360)
    world.run(1)

    assert (len(sent), sum(each.sends for each in a.clear_sockets), len(b.tun.writes)) == (30, 1, 1)


@pytest.mark.parametrize("changed", range(22))
def test_payloads_that_differ_before_the_packet_are_not_joined(changed):
    world = World()
    a, b = pair_in(world)
    whole = genuine(b, a, size=4 * 1360, tcp=True)
    payloads = [framed(each) for each in packets.kernel_segments(*packets.as_super_packet(whole, 1360))]
    other = bytearray(payloads[2])
    other[changed] ^= 0x10
    payloads[2] = bytes(other)

    arrive(world, a, *payloads, source=b.addresses[0])

    is_ignored = changed in {0, 1, 2, 3, 7} or 14 <= changed < 20  # the reserved fields, and the source
    assert len(a.received) == (4 if is_ignored else 3)
    assert all(packets.is_l4_checksum_right(packet) for packet in a.received)
    assert len(a.tun.writes) > 1


def test_a_flow_keeps_its_port_and_flows_have_several(world):
    a, b = pair_in(world)
    flights = watch(world)

    for port in range(100):
        a.send(b, ports=(30000 + port, 443))
    for _ in range(3):
        a.send_super(b, 8000, ports=(30000, 443))
        a.send(b, 3, ports=(30001, 443))
    world.run(1)

    ports = {}
    for flight in flights:
        inner = flight.datagram[22:]
        ports.setdefault(inner[9:10] + inner[20:24], set()).add(flight.source[1])
    assert len(ports) == 101
    assert all(len(each) == 1 for each in ports.values())
    assert set.union(*ports.values()) == set(range(SENDERS_PORT, SENDERS_PORT + 16))


def test_small_packets_of_flows_that_alternate_leave_in_one_send_for_each_port():
    world = World()
    a, b = pair_in(world)

    sent = []
    for _ in range(10):
        for port in (30000, 30001, 30002):
            sent += a.send(b, ports=(port, 443))
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert sum(each.sends for each in a.clear_sockets) == 3


def test_packets_of_one_flow_stay_in_order_around_a_super_packet(world):
    a, b = pair_in(world)

    sent = []
    for _ in range(4):
        sent += [packets.tcp(b"x", source=a.inner(), destination=b.inner())]
        a.tun.outgoing.append(packets.PLAIN + sent[-1])
        sent += a.send_super(b, 4000)
    world.run(1)

    assert b.received == sent


def test_a_full_socket_keeps_what_it_did_not_take_for_the_same_port(world):
    a, b = pair_in(world)
    a.send(b, ports=(30000, 443))
    world.run(1)
    used = next(each for each in a.clear_sockets if each.sends)
    flights = watch(world)
    used.errors.append(errno.EAGAIN)

    sent = a.send(b, 3, ports=(30000, 443)) + a.send(b, 3, ports=(30001, 443))
    a.core.outbound.drain(a.tun, world.clock.now)
    assert a.core.sender.is_holding
    world.run(1)

    assert b.received[1:] == sent
    assert {flight.source[1] for flight in flights if flight.datagram[22:][20:22] == b"\x75\x30"} == {
        used.port
    }


def test_encrypted_peers_and_vxlan_peers_are_served_side_by_side(world):
    a, b = world.pair()
    c = world.node("c")
    a.know_in_the_clear(c, encapsulation="vxlan")
    c.know_in_the_clear(a, encapsulation="vxlan")

    for turn in range(4):
        to_b, to_c = [], []
        for number in range(12):
            if (number * 5 + turn) % 3:
                to_c += a.send(c)
            else:
                to_b += a.send(b)
        world.run(1)
        assert b.received == to_b
        assert c.received == to_c
        b.received.clear()
        c.received.clear()


@pytest.mark.parametrize("count", [1, 4])
def test_only_a_peer_s_endpoint_may_send_from_any_port(world, count):
    a, b = pair_in(world)
    packet = genuine(b, a)

    arrive(world, a, *[framed(packet)] * count, source="203.0.113.66")
    assert (a.received, a.drops) == ([], {"outer_source": count})

    arrive(world, a, *[framed(packet)] * count, source=b.addresses[0], port=1)
    assert a.received == [packet] * count


@pytest.mark.parametrize("is_tcp", [True, False])
def test_an_inner_source_that_is_not_the_peer_s_is_refused(world, is_tcp):
    a, b = pair_in(world)
    segments = [genuine(b, a, source="10.9.9.9")] * 3
    if is_tcp:
        whole = genuine(b, a, size=4080, tcp=True, source="10.9.9.9")
        segments = packets.kernel_segments(*packets.as_super_packet(whole, 1360))

    arrive(world, a, *map(framed, segments), source=b.addresses[0])

    assert (a.received, a.peer().drops) == ([], {"source": 3})


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"header": b"\x08\0\0\0\0\0\x63\0"}, "vni"),
        ({"header": b"\0" + HEADER[1:]}, "vxlan_flags"),
        ({"to": B}, "mac"),
        ({"to": b"\xff" * 6}, "multicast"),
        ({"to": bytes.fromhex("01005e0000fb")}, "multicast"),
        ({"kind": b"\x81\x00"}, "vlan"),
        ({"kind": b"\x88\xcc"}, "ethertype"),
        ({"kind": b"\x86\xdd"}, "inner_version"),
    ],
)
def test_frames_that_are_not_for_this_end_are_refused_by_their_reason(world, how, reason, count):
    a, b = pair_in(world)

    arrive(world, a, *[framed(genuine(b, a, tcp=True, size=1000), **how)] * count, source=b.addresses[0])

    assert (a.received, a.peer().drops) == ([], {reason: count})


def test_the_source_of_a_frame_is_not_looked_at(world):
    a, b = pair_in(world)
    packet = genuine(b, a)

    arrive(world, a, framed(packet, by=bytes.fromhex("02aaaaaaaaaa")), source=b.addresses[0])

    assert a.received == [packet]


def test_another_vni_and_another_mac_hold_from_the_change_on(world):
    a, b = pair_in(world)
    packet, mac = genuine(b, a), bytes.fromhex("02bbbbbbbbbb")
    flights = watch(world)

    a.tell(link.SetPeer(1, 0.0, "vxlan", [], Ends(9, mac, mac)))
    arrive(
        world,
        a,
        framed(packet),
        framed(packet, header=b"\x08\0\0\0\0\0\x09\0", to=mac),
        source=b.addresses[0],
    )
    a.send(b)
    world.run(1)

    assert (a.received, a.peer().drops) == ([packet], {"vni": 1})
    assert flights[-1].datagram[:20] == b"\x08\0\0\0\0\0\x09\0" + mac + mac


def test_our_own_datagram_on_its_way_into_its_tunnel_is_a_loop(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, subnets=["192.0.2.0/24"], encapsulation="vxlan")

    for port in (SENDERS_PORT + 3, 12345):
        ends = {"source": a.addresses[0], "destination": b.addresses[0]}
        a.tun.outgoing.append(packets.PLAIN + packets.udp(b"x", ports=(port, CLEAR_PORT), **ends))
    world.run(1)

    assert (a.drops, len(world.network.sent)) == ({"loop": 1}, 1)


def test_nothing_is_sent_from_the_sockets_that_receive_nor_read_from_those_that_send(world):
    a, b = pair_in(world)

    a.send(b, 20)
    a.send_super(b, 8000)
    world.run(1)

    assert [each.sends for each in a.clear_sockets if each.port == CLEAR_PORT] == [0, 0]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mark", range(4))
def test_the_inner_ecn_field_is_the_outer_one(world, version, mark):
    a, b = pair_in(world)
    seen = watch(world)

    a.send(b, version=version, tos=mark)
    world.run(1)

    assert [flight.tos for flight in seen] == [mark]
    assert not b.drops


@pytest.mark.parametrize("is_train", [False, True])
@pytest.mark.parametrize(("inner", "is_taken"), [(NOT_ECT, False), (ECT_0, True), (CE, True)])
def test_a_congestion_mark_goes_inside_or_the_packet_is_dropped(world, is_train, inner, is_taken):
    a, b = pair_in(world)
    sent = [genuine(b, a, tos=inner)] * (3 if is_train else 1)

    arrive(world, a, *map(framed, sent), source=b.addresses[0], tos=CE)

    assert len(a.received) == (len(sent) if is_taken else 0)
    assert all(packet[1] & 3 == CE and packets.is_ip_checksum_right(packet) for packet in a.received)
    assert a.drops == ({} if is_taken else {"ecn": len(sent)})


def test_new_sockets_take_over_and_the_old_ones_close(world):
    a, b = pair_in(world)
    a.send(b, 3)
    world.run(1)
    old = a.clear_sockets

    a._open_clear_sockets("vxlan")
    for each in a.clear_sockets:
        each.port += 100 if each.port != CLEAR_PORT else 0
    for port in range(40):
        a.send(b, ports=(port, 1))
    flights = watch(world)
    world.run(20)

    assert {flight.source[1] for flight in flights} == set(range(SENDERS_PORT + 100, SENDERS_PORT + 116))
    assert all(each.is_closed for each in old)
    assert len(b.received) == 43


def test_a_role_of_sockets_that_there_is_none_of_changes_nothing(world):
    a, b = pair_in(world)

    a.tell(link.Sockets("vxlan", [link.SocketRow(2, CLEAR_PORT, 99)]), a.clear_sockets[:1])

    assert a.drops == {"link": 1}
    sent = a.send(b)
    world.run(1)
    assert b.received == sent


@pytest.mark.parametrize("count", [1, 3])
def test_a_checksum_that_a_kernel_left_to_its_card_is_finished(world, count):
    a, b = pair_in(world)
    packet = genuine(b, a, tcp=True, size=1000)
    unfinished, _ = packets.as_super_packet(packet, 1)

    arrive(world, a, *[framed(unfinished)] * count, source=b.addresses[0])

    assert unfinished != packet
    assert a.received == [packet] * count


@pytest.fixture(scope="module")
def shared():
    world = World()
    return world, *pair_in(world)


@examples(200)
@given(
    payloads=st.lists(
        st.binary(max_size=80)
        | st.builds(
            lambda head, to, kind, body: head + to + B + kind + body,
            st.sampled_from([HEADER, b"\x08" + bytes(7)]),
            st.sampled_from([A, B, b"\xff" * 6]),
            st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00"]),
            st.binary(max_size=80)
            | st.sampled_from([solicitation()[14:], packets.udp(b"x"), packets.tcp(b"x", version=6)]),
        ),
        max_size=5,
    ),
    tos=st.integers(0, 3),
)
def test_any_datagrams_are_taken_as_the_peer_s_packets_or_dropped_and_counted(shared, payloads, tos):
    world, a, b = shared
    a.received.clear()
    before = a.drops.total()

    arrive(world, a, *payloads, source=b.addresses[0], tos=tos)

    assert len(a.received) + a.drops.total() - before >= len(payloads)
    assert all(packets.is_ip_checksum_right(packet) for packet in a.received)
