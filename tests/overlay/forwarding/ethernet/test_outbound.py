from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.ethernet.outbound import FLOODED_AT_ONCE, FLOODED_PER_SECOND
from overlay.link import messages as link
from overlay.wire.frames import FRAME_OVERHEAD
from tests import packets
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.ethernet.test_bridge import EVERYBODY, arp, mac
from tests.overlay.wire.test_frames import solicitation
from tests.sim import World

LAN = mac(77)  # a station behind the tap


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def world(request):
    return World(has_gro=request.param, is_tap=True)


@pytest.fixture
def pair(world):
    return greeted(*world.pair())


def greeted(*nodes):
    """Give the nodes of one world sessions and each other's Ethernet addresses, and discard the frames."""
    world = nodes[0].world
    for node in nodes:
        node.send_frame(EVERYBODY, packets.udp(b"hello"))
        world.run(1)
    for node in nodes:
        node.received.clear()
    return nodes


def triple(world):
    """Return nodes a, b and c, each of which knows the other two."""
    nodes = [world.node(name) for name in "abc"]
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.know(other, macs=[other.mac], addresses=[other.inner(), other.inner(6)])
    return greeted(*nodes)


def segments_of(node, destination, packet, segment, tag=b""):
    """Let *node* send a super-frame, and return the frames that it stands for."""
    whole, virtio = packets.as_super_frame(packet, segment, 14 + len(tag))
    frame = node.send_frame(destination, whole, virtio=virtio, tag=tag)
    return packets.kernel_frames(frame, virtio)


# One frame


def test_a_frame_for_everybody_makes_the_handshake_and_arrives(world):
    a, b = world.pair()
    frame = a.send_frame(EVERYBODY, arp(a.mac, "10.0.0.1", "10.0.0.2")[12:])

    world.run(1)

    assert b.received == [frame]


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 1375, 1376])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5", b"\x88\xa8\0\5\x81\0\0\6"])
def test_frames_arrive_as_long_as_they_were(pair, size, tag):
    a, b = pair
    frame = a.send_frame(b.mac, b"\x88\xb5" + bytes(range(1, 251)) * 6 + b"\1" * size, tag=tag)
    frame = a.send_frame(b.mac, b"\x88\xb5" + b"\1" * size, tag=tag)

    a.world.run(1)

    assert b.received[-1] == frame


def test_an_untagged_frame_of_the_largest_packet_fills_one_datagram_of_the_underlay(pair):
    a, b = pair
    packet = packets.udp(bytes(a.mtu - 28))
    a.send_frame(b.mac, packet)
    a.world.run(1)

    *_, size = a.world.network.sent[-1]
    assert len(packet) == 1404
    assert size == a.mtu + FRAME_OVERHEAD + 32 == 1500 - 48


def test_a_frame_for_a_station_leaves_for_its_peer_alone(world):
    a, b, c = triple(world)
    c.send_frame(a.mac, packets.udp(b"I am here"), source=LAN)
    world.run(1)

    frame = a.send_frame(LAN, packets.udp(b"x"))
    world.run(1)

    assert (b.received, c.received) == ([], [frame])


def test_a_frame_for_nobody_known_goes_to_each_peer_once(world):
    a, b, c = triple(world)
    frame = a.send_frame(mac(99), packets.udp(b"x"))

    world.run(1)

    assert (b.received, c.received) == ([frame], [frame])


def test_a_frame_of_a_peer_never_goes_to_another(world):
    a, b, c = triple(world)
    before = len(world.network.sent)
    a.send_frame(b.mac, packets.udp(b"x"))
    world.run(1)

    assert [who for _, who, what, _ in world.network.sent[before:] if what == "data"] == ["a"]
    assert c.received == []


def test_a_frame_for_a_station_of_the_tap_stays_at_home(pair):
    a, b = pair
    a.send_frame(EVERYBODY, packets.udp(b"x"), source=LAN)
    a.world.run(1)
    b.received.clear()

    a.send_frame(LAN, packets.udp(b"x"))
    a.world.run(1)

    assert b.received == []
    assert a.drops == {"own_side": 1}


def test_a_frame_with_the_static_address_of_a_peer_as_source_is_refused(world):
    a, b, c = triple(world)
    for _ in range(2):
        a.send_frame(c.mac, packets.udp(b"x"), source=b.mac)
    world.run(1)

    assert (b.received, c.received) == ([], [])
    assert a.drops == {"mac": 2}


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_of_our_own_that_a_bridge_brings_back_is_a_loop(world, version):
    a, b = world.node("a"), world.node("b")
    at = 0 if version == 4 else 1
    a.know(b, endpoint=(b.addresses[at], b.port, *(0, 0) * at))
    b.know(a, endpoint=None)
    greeted(a, b)
    own, other = (
        packets.udp(
            b"x" * 100, version=version, source=a.addresses[at], destination=b.addresses[at], ports=ports
        )
        for ports in ((a.port, b.port), (7, b.port))
    )
    a.send_frame(EVERYBODY, own)
    sent = a.send_frame(EVERYBODY, other)
    a.send_frame(EVERYBODY, own)
    world.run(1)

    assert a.drops == {"loop": 2}
    assert b.received == [sent]


@pytest.mark.parametrize("frame", [b"", bytes(13)])
def test_anything_but_a_frame_is_refused(pair, frame):
    a, _ = pair
    a.tun.outgoing += [packets.PLAIN + frame] * 2
    a.world.run(1)

    assert a.drops == {"tun_malformed": 2}


def test_frames_that_waited_for_a_session_arrive_in_order(world):
    a, b = world.pair()
    sent = [a.send_frame(EVERYBODY, packets.udp(bytes(size))) for size in (5, 500, 50)]
    sent += segments_of(a, EVERYBODY, packets.tcp(bytes(5000)), 1340)

    world.run(1)

    assert b.received == sent


def test_a_peer_without_an_endpoint_gets_nothing_and_nothing_waits_for_it(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, endpoint=None)
    for _ in range(2):
        a.send_frame(EVERYBODY, packets.udp(b"x"))
    world.run(1)

    assert a.drops == {"no_endpoint": 2}


def test_nobody_is_told_that_a_peer_cannot_be_reached(world):
    a, b = world.node("a"), world.node("b")
    a.know(b, endpoint=("192.0.2.99", 1))
    for _ in range(200):
        a.send_frame(EVERYBODY, packets.udp(b"x"))
        world.run(1)

    assert a.drops["given_up"] > 0
    assert a.received == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_partial_checksum_is_finished(pair, version):
    a, b = pair
    whole = packets.udp(b"hello", version=version)
    start = 14 + packets.l4_start(whole)
    packet, _ = packets.as_super_packet(whole, 100)
    frame = a.send_frame(b.mac, whole)
    a.tun.outgoing.clear()
    a.send_frame(b.mac, packet, virtio=struct.pack("<BBHHHH", 1, 0, 0, 0, start, 6))
    a.world.run(1)

    assert b.received == [frame]


@pytest.mark.parametrize(("start", "offset"), [(19, 6), (34, 200), (100, 6), (65535, 65535), (0, 0)])
def test_a_checksum_outside_the_packet_is_refused(pair, start, offset):
    a, b = pair
    for _ in range(2):
        a.send_frame(b.mac, packets.udp(b"hello"), virtio=struct.pack("<BBHHHH", 1, 0, 0, 0, start, offset))
    a.world.run(1)

    assert a.drops == {"tun_malformed": 2}


@pytest.mark.parametrize("is_partial", [False, True], ids=["whole", "partial"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
def test_a_syn_is_clamped_to_what_fits(pair, version, tag, is_partial):
    a, b = pair
    syn, virtio = (
        packets.tcp(b"", version=version, flags=packets.SYN, tcp_options=b"\2\4\5\xb4"),
        packets.PLAIN,
    )
    if is_partial:
        start = 14 + len(tag) + packets.l4_start(syn)
        (syn, _), virtio = packets.as_super_packet(syn, 100), struct.pack("<BBHHHH", 1, 0, 0, 0, start, 16)
    a.send_frame(b.mac, syn, tag=tag, virtio=virtio)
    a.world.run(1)

    headers = {4: 40, 6: 60}[version]
    (received,) = b.received
    packet = received[14 + len(tag) :]
    assert int.from_bytes(packet[headers + 2 : headers + 4], "big") == a.mtu - len(tag) - headers
    assert packets.is_l4_checksum_right(packet)


def test_a_frame_takes_the_ecn_field_of_its_packet_outside(pair):
    a, b = pair
    marks = []
    a.world.network.lose = lambda flight: bool(marks.append(flight.tos))
    for packet in (
        packets.udp(b"x", tos=2),
        packets.udp(b"x", tos=1, version=6),
        arp(a.mac, "::", "::")[12:14],
    ):
        a.send_frame(b.mac, packet)
    a.world.run(1)

    assert marks[:3] == [2, 1, 0]


def test_a_frame_that_is_no_ip_packet_has_no_ecn_field_outside_whatever_its_addresses_are(pair):
    a, b = pair
    a.send_frame(b.mac, packets.udp(b"x"))
    a.world.run(1)
    marks = []
    a.world.network.lose = lambda flight: bool(marks.append(flight.tos))
    for destination in (b"\xff" * 6, b"\x33\x33\xff\xff\xff\xff", b"\x02\x01\0\0\0\1", b"\x43\x03\0\0\0\1"):
        a.send_frame(destination, arp(a.mac, "10.0.0.1", "10.0.0.2")[12:])
    a.world.run(1)

    assert len(marks) >= 4
    assert set(marks) == {0}


# Super-frames


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
@pytest.mark.parametrize("size", [1345, 2680, 20_000, 60_000])
def test_a_super_frame_arrives_as_its_segments(pair, version, tag, size):
    a, b = pair
    body = random.Random(size).randbytes(size)
    sent = segments_of(
        a, b.mac, packets.tcp(body, version=version, flags=packets.ACK | packets.PSH), 1340, tag
    )

    a.world.run(1)

    assert b.received == sent
    if a.world.has_gro:
        assert len(b.tun.writes) <= 3 + 2 * (size // 60_000), "joined again"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [900, 901, 30_000])
def test_a_super_frame_of_udp_arrives_as_its_segments(pair, version, size):
    a, b = pair
    sent = segments_of(a, b.mac, packets.udp(bytes(size), version=version), 450)

    a.world.run(1)

    assert b.received == sent


def test_a_super_frame_for_nobody_known_goes_to_each_peer_in_segments(world):
    a, b, c = triple(world)
    sent = segments_of(a, mac(99), packets.tcp(bytes(9000)), 1340)

    world.run(1)

    assert (b.received, c.received) == (sent, sent)


def test_a_super_frame_whose_header_tells_nothing_but_its_kind_arrives_as_its_segments(pair):
    a, b = pair
    whole = packets.tcp(bytes(3000), source=a.inner(), destination=b.inner())
    packet, virtio = packets.as_super_packet(whole, 1000)
    a.send_frame(b.mac, packet, virtio=struct.pack("<BBHHHH", 0, virtio[1], 0, 1000, 14 + 20, 0))
    a.world.run(1)

    assert [frame[14:] for frame in b.received] == packets.kernel_segments(packet, virtio)


@pytest.mark.parametrize("ethertype", [b"\x08\x06", b"\x88\xb5"])
@pytest.mark.parametrize("number", [2, 99])
def test_a_super_frame_without_an_ip_packet_is_refused(pair, ethertype, number):
    a, _ = pair
    whole, virtio = packets.as_super_frame(packets.tcp(bytes(9000)), 1340)
    for _ in range(2):
        a.send_frame(mac(number), ethertype + whole, virtio=virtio)
    a.world.run(1)

    assert a.drops == {"tun_gso": 2}


@examples(150)
@given(
    frame=st.binary(max_size=120),
    virtio=st.binary(min_size=10, max_size=10),
    ethertype=st.sampled_from([b"\x08\0\x45", b"\x86\xdd\x60", b"\x81\0\0\1\x08\0\x45", b""]),
    target=st.sampled_from([1, 2, 3]),
)
def test_any_bytes_of_the_tap_are_no_exception(pair, frame, virtio, ethertype, target):
    a, _ = pair
    for header in (virtio, bytes([1, virtio[1] % 6]) + virtio[2:6] + bytes([34, 0, 16, 0]), packets.PLAIN):
        a.tun.outgoing.append(header + mac(target) + mac(9) + ethertype + frame)
    a.tun.outgoing.append(virtio + frame)

    a.core.outbound.drain(a.tun, a.world.clock.now)
    a.core.outbound.drain(a.tun, a.world.clock.now)
    a.tun.outgoing.clear()

    assert not a.core.sender.is_holding


def test_what_a_full_socket_keeps_is_not_overwritten(pair):
    a, b = pair
    sent = []
    a.sockets[0].is_full = True
    for number in range(4):
        sent += segments_of(a, b.mac, packets.tcp(bytes([number]) * 20_000, sequence=number * 20_000), 1340)
        sent.append(a.send_frame(b.mac, packets.udp(bytes([number]) * 40)))
    a.world.run(0)
    a.sockets[0].is_full = False
    a.world.run(1)

    assert b.received == sent


def test_frames_of_one_batch_arrive_in_order_whatever_way_they_go(pair):
    a, b = pair
    sent = []
    for number in range(3):
        sent.append(a.send_frame(b.mac, packets.udp(bytes([number]) * 40)))
        sent.append(a.send_frame(EVERYBODY, packets.udp(bytes([number]) * 50)))
        sent.append(a.send_frame(b.mac, packets.udp(bytes([number]) * 60)))
        sent += segments_of(a, b.mac, packets.udp(bytes([number]) * 3000), 1000)
    a.world.run(1)

    assert b.received == sent


def test_what_a_removed_peer_had_may_be_at_another(world):
    a, _b, c = triple(world)
    a.tell(link.RemovePeer(1))
    frame = c.send_frame(a.mac, packets.udp(b"x"), source=mac(2))
    c.core.bridge.forget(2)
    c.tun.outgoing.clear()
    c.tun.outgoing.append(packets.PLAIN + frame)
    world.run(1)

    assert a.received == [frame]


# A narrow path


def narrowed(pair, mtu=1300):
    """Let the path between the two have an MTU of *mtu* bytes, which both know."""
    a, b = pair
    a.world.network.mtu = mtu
    for node in pair:
        node.peer().path.mtu = mtu - 80
    return a, b


def test_a_frame_that_the_path_does_not_take_whole_arrives_by_a_datagram_that_may_be_cut(pair):
    a, b = narrowed(pair)
    sent = [a.send_frame(b.mac, packets.udp(bytes(size))) for size in (1300, 100)]
    sent += segments_of(a, b.mac, packets.tcp(bytes(5000)), 1340)
    a.world.run(1)

    assert b.received == sent
    assert a.received == [], "no sender is informed"


def test_a_syn_is_clamped_to_what_the_path_takes(pair):
    a, b = narrowed(pair)
    b.peer().path.mtu = 1 << 17
    a.send_frame(b.mac, packets.tcp(b"", flags=packets.SYN, tcp_options=b"\2\4\5\xb4"))
    a.world.run(1)

    assert int.from_bytes(b.received[0][14 + 42 : 14 + 44], "big") == 1220 - FRAME_OVERHEAD - 40


def test_the_path_is_searched_and_told_as_the_packet_that_fits():
    world = World(is_tap=True, ciphers=(1,))
    world.network.mtu = 1300
    a, b = greeted(*world.pair())
    for _ in range(40):
        segments_of(a, b.mac, packets.tcp(bytes(5000)), 1340)
        world.run(0.5)
    a.tell(link.AskCounters(1))
    world.run(0)

    (row,) = a.reported[-1].peers
    assert 1100 < row.path_mtu == a.peer().path.mtu - FRAME_OVERHEAD < 1220


# Many broadcast frames


def test_frames_that_together_are_more_than_the_arena_arrive_in_their_order(world):
    a, b = world.node("a"), world.node("b")
    for one, other in ((a, b), (b, a)):
        one.know(other, macs=[other.mac])
        one.set_node(9000)
    greeted(a, b)
    sent = [a.send_frame(b.mac, packets.udp(bytes([n]) * 8000)) for n in range(64)]

    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("is_known", [False, True])
def test_a_frame_that_looks_like_a_syn_and_is_no_ip_packet_stays_as_it_is(world, is_known):
    """Its Ethernet header has the bytes of an IPv6 header: 0x88b5 is the EtherType, and 6 begins the source."""
    a, b = greeted(*world.pair())
    ends = {"source": "fd00:0:88b5::1", "destination": "fd00::2"}
    frame = packets.tcp(b"", version=6, flags=packets.SYN, tcp_options=b"\2\4\xff\xff", **ends)
    assert (frame[6], frame[12:14]) == (6, b"\x88\xb5")
    if is_known:
        b.send_frame(a.mac, b"\x88\xb5", source=frame[:6])
        world.run(1)

    a.tun.outgoing.append(packets.PLAIN + frame)
    world.run(1)

    assert b.received == [frame]


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1388, 1389, 1402])
def test_copies_for_everybody_are_padded_as_a_frame_for_one_is(world, size):
    a, b, c = triple(world)
    sizes = []
    world.network.lose = lambda flight: bool(sizes.append(len(flight.datagram)))
    for destination in (b.mac, EVERYBODY):
        a.send_frame(destination, b"\x88\xb5" + b"\1" * size)
    world.run(0.1)

    whole, largest = -(-(size + 16) // 16) * 16, a.mtu + FRAME_OVERHEAD
    assert sizes == [32 + (whole if whole <= largest else size + 16)] * 3
    assert len(b.received) == 2
    assert len(c.received) == 1


@pytest.mark.slow
def test_flooding_has_a_limit_that_is_counted(world):
    a, b, c = triple(world)
    most = int(FLOODED_AT_ONCE) // 2
    for node in (b, c):
        node.tun.write = lambda buffers: None
    before = a.peer().traffic.tx_packets
    for _ in range(most + 500):
        a.send_frame(EVERYBODY, b"\x88\xb5")
    world.run(0)
    sent = a.peer().traffic.tx_packets - before

    assert a.drops == {"flood": most + 500 - sent}
    assert sent == most

    world.run(0.1)
    for _ in range(most):
        a.send_frame(EVERYBODY, b"\x88\xb5")
    world.run(0)
    assert a.peer().traffic.tx_packets - before - sent == pytest.approx(0.1 * FLOODED_PER_SECOND / 2, abs=2)


def test_frames_for_one_station_have_no_limit(world):
    a, b, _ = triple(world)
    b.tun.write = lambda buffers: None
    for _ in range(int(FLOODED_AT_ONCE)):
        a.send_frame(b.mac, b"\x88\xb5")
    world.run(0)

    assert a.drops == {}


# Answers on behalf of a peer


def test_a_request_that_the_peers_file_answers_is_not_flooded(world):
    a, b, c = triple(world)
    a.send_frame(EVERYBODY, arp(a.mac, a.inner(), b.inner())[12:])
    world.run(1)

    assert (b.received, c.received) == ([], [])
    assert a.received == [arp(b.mac, b.inner(), a.inner(), destination=a.mac, operation=2, target_mac=a.mac)]


def test_a_solicitation_that_the_peers_file_answers_is_not_flooded(world):
    a, b, c = triple(world)
    a.send_frame(b"\x33\x33\xff\0\0\1", solicitation(a.inner(6), b.inner(6))[12:])
    world.run(1)

    assert (b.received, c.received) == ([], [])
    (answer,) = a.received
    assert (answer[:6], answer[6:12], answer[54]) == (a.mac, b.mac, 136)
    assert answer[58] == 0x40, "solicited, and not a router: the peers file says nothing about that"


def test_the_second_request_for_an_address_that_answered_is_not_flooded(world):
    a, b, c = triple(world)
    asked, answer = arp(a.mac, a.inner(), "10.9.9.9"), None
    for expected in (1, 0):
        a.send_frame(EVERYBODY, asked[12:])
        world.run(1)
        assert [len(node.received) for node in (b, c)] == [expected, expected]
        if answer is None:
            answer = arp(LAN, "10.9.9.9", a.inner(), destination=a.mac, operation=2, target_mac=a.mac)
            c.send_frame(a.mac, answer[12:], source=LAN)
            world.run(1)
            b.received.clear()
            c.received.clear()

    assert a.received == [answer, answer]


def test_peers_say_hello_with_the_session_and_answer_pings(world):
    world.ciphers = (1,)
    a, b = world.pair()
    a.want(1)
    world.run(1)
    a.reported.clear()
    for node in (a, b):
        node.tell(link.PingPeer(1, 7))
    world.run(1)

    for node in (a, b):
        (pong,) = [report for report in node.reported if isinstance(report, link.Ponged)]
        assert pong.seconds == pytest.approx(0.02)


# Units


def unit_pair(**how):
    """Return two nodes that carry super-frames as units."""
    world = World(is_tap=True, ciphers=(1,), **how)
    a, b = greeted(*world.pair())
    a.send_frame(b.mac, packets.udp(b"x"))
    world.run(1)
    b.received.clear()
    return a, b


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5", b"\x88\xa8\0\5\x81\0\0\6"])
@pytest.mark.parametrize("size", [1401, 20_000, 64_900])
def test_a_super_frame_goes_as_a_unit(version, tag, size):
    a, b = unit_pair()
    body = random.Random(size).randbytes(size)
    tcp = packets.tcp(body, version=version, flags=packets.ACK | packets.PSH)
    sent = [frame for _ in range(3) for frame in segments_of(a, b.mac, tcp, 700, tag)]

    a.world.run(1)

    assert b.received == sent
    assert b.peer().traffic.rx_units >= (3 if size < 30_000 else 2), "nothing else was sent"
    assert a.peer().traffic.tx_packets - 2 == b.peer().traffic.rx_packets - 2 == len(sent)


@pytest.mark.parametrize("joins_udp", [True, False])
def test_a_super_frame_of_udp_goes_as_a_unit_whatever_the_far_kernel_takes(joins_udp):
    world = World(is_tap=True, ciphers=(1,))
    a, b = world.node("a"), world.node("b")
    b.joins_udp = joins_udp
    b.restart_forwarder()
    a.know(b)
    b.know(a)
    greeted(a, b)
    for make, is_joined in ((packets.udp, joins_udp), (packets.tcp, True)):
        writes, units = len(b.tun.writes), b.peer().traffic.rx_units
        b.received.clear()

        sent = segments_of(a, b.mac, make(bytes(9000)), 900)
        world.run(1)

        assert b.received == sent
        assert b.peer().traffic.rx_units > units
        assert len(b.tun.writes) - writes == (b.peer().traffic.rx_units - units if is_joined else len(sent))


def test_super_frames_arrive_in_smaller_units_where_datagrams_are_lost():
    a, b = unit_pair()
    chance = random.Random(1)
    a.world.network.lose = lambda flight: flight.kind == "fragment" and chance.random() < 0.01
    sent = []
    for number in range(60):
        body = random.Random(number).randbytes(60_000)
        sent += segments_of(a, b.mac, packets.tcp(body, sequence=number * 60_000), 1340)
        a.world.run(0.2)

    assert len(b.received) > 0.7 * len(sent)
    assert set(b.received) <= set(sent)


@pytest.mark.parametrize("flags", [0, 1])
def test_only_what_the_kernel_vouches_for_goes_as_a_unit(flags):
    a, b = unit_pair()
    packet, virtio = packets.as_super_frame(packets.tcp(bytes(5000)), 1000)
    a.send_frame(b.mac, packet, virtio=bytes([flags]) + virtio[1:])
    a.world.run(1)

    assert (b.peer().traffic.rx_units, len(b.received)) == (flags, 5)


@pytest.mark.parametrize("error", [BlockingIOError(11, "EAGAIN"), OSError(5, "EIO")])
def test_an_answer_that_the_tap_does_not_take_is_given_when_it_is_asked_for_again(error):
    world = World(is_tap=True)
    a, b = world.node("a"), world.node("b")
    a.know(b, macs=[b.mac], addresses=["10.0.0.2"])
    question = packets.PLAIN + arp(a.mac, "10.0.0.1", "10.0.0.2")

    a.tun.error = error
    a.tun.outgoing.append(question)
    world.run(0)
    a.tun.error = None
    a.tun.outgoing.append(question)
    world.run(0)

    assert [frame[:14] for frame in a.received] == [a.mac + b.mac + b"\x08\x06"]
