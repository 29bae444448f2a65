from __future__ import annotations

import random
import struct
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.link import messages as link
from overlay.wire.ip import pseudo_header_sum
from tests import packets
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.overlay.forwarding.ethernet.test_bridge import EVERYBODY, arp, mac
from tests.overlay.forwarding.ethernet.test_outbound import greeted, segments_of
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import CLEAR_PORT, SENDERS_PORT, VNI, World

HEADER = b"\x08\0\0\0" + VNI.to_bytes(3, "big") + b"\0"


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def world(request):
    return World(has_gro=request.param, is_tap=True)


@pytest.fixture
def pair(world):
    return greeted(*world.clear_pair(encapsulation="vxlan"))


@pytest.fixture(scope="module")
def shared():
    """One pair of nodes for many examples."""
    return greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))


def arrive(node, *payloads, source="192.0.2.1", tos=0):
    """Let *node* receive *payloads* now."""
    (udp,) = [each for each in node.clear_sockets if each.port == CLEAR_PORT and each.family == 2]
    destination = (node.addresses[0], CLEAR_PORT)
    udp.inbox += [Flight((source, SENDERS_PORT), destination, each, tos) for each in payloads]
    node.world.run(0)


def watch(world):
    """Return a list that collects what is sent from now on."""
    flights = []
    world.network.lose = lambda flight: bool(flights.append(flight))
    return flights


def test_a_frame_is_eight_bytes_before_itself_on_the_wire(pair):
    a, b = pair
    flights = watch(a.world)
    frame = a.send_frame(b.mac, packets.udp(b"hello"))
    a.world.run(1)

    assert [flight.datagram for flight in flights] == [HEADER + frame]
    assert b.received == [frame]


@pytest.mark.parametrize("size", [1, 46, 1000, 1404])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
def test_frames_arrive_as_long_as_they_were(pair, size, tag):
    a, b = pair
    sent = [
        a.send_frame(destination, b"\x88\xb5" + b"\1" * size, tag=tag) for destination in (b.mac, EVERYBODY)
    ]
    a.world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
@pytest.mark.parametrize("destination", [mac(2), mac(99)])
def test_a_super_frame_arrives_as_its_segments(pair, version, tag, destination):
    a, b = pair
    body = random.Random(version).randbytes(30_000)
    before = len(b.tun.writes)
    sent = segments_of(a, destination, packets.tcp(body, version=version), 1340, tag)
    a.world.run(1)

    assert b.received == sent
    if a.world.has_gro and destination == mac(2):
        assert len(b.tun.writes) - before <= 2, "joined again"


def test_a_super_frame_of_udp_arrives_as_its_segments(pair):
    a, b = pair
    sent = segments_of(a, b.mac, packets.udp(bytes(9001)), 450)
    a.world.run(1)

    assert b.received == sent


def test_copies_for_everybody_leave_from_the_port_of_their_flow(pair):
    a, b = pair
    flights = watch(a.world)
    for number in range(1, 20):
        for destination in (b.mac, EVERYBODY):
            a.send_frame(destination, packets.udp(b"x", ports=(number, 7)))
    a.world.run(0.1)

    ports = {}
    for flight in flights:
        ports.setdefault(flight.datagram[8 + 14 + 20 :][:2], set()).add(flight.source[1])
    assert len(ports) == 19
    assert {len(each) for each in ports.values()} == {1}
    assert len(set.union(*ports.values())) > 1


def test_flows_leave_from_several_ports_and_each_from_one(pair):
    a, b = pair
    flights = watch(a.world)
    for number in range(40):
        for _ in range(2):
            a.send_frame(b.mac, packets.udp(b"x", ports=(number, 7)))
    a.world.run(1)

    ports = {}
    for flight in flights:
        ports.setdefault(flight.datagram[8 + 14 + 20 :][:2], set()).add(flight.source[1])
    assert len(ports) == 40
    assert all(len(each) == 1 for each in ports.values())
    assert len(set.union(*ports.values())) > 5


def test_super_frames_leave_from_the_port_of_their_flow(pair):
    a, b = pair
    flights = watch(a.world)
    for number in range(1, 20):
        packet, virtio = packets.as_super_frame(packets.tcp(bytes(4000), ports=(number, 7)), 1360, 14)
        a.send_frame(b.mac, packet, virtio=virtio)
    a.world.run(0.1)

    ports = {}
    for flight in flights:
        ports.setdefault(flight.datagram[8 + 14 + 20 :][:2], set()).add(flight.source[1])
    assert len(ports) == 19
    assert {len(each) for each in ports.values()} == {1}
    assert len(set.union(*ports.values())) > 1


def test_encrypted_peers_and_peers_in_the_clear_share_a_link(world):
    a, b, c = (world.node(name) for name in "abc")
    for one, other in ((a, b), (b, a), (b, c), (c, b)):
        one.know(other, subnets=other.subnets)
    for one, other in ((a, c), (c, a)):
        one.know_in_the_clear(other, encapsulation="vxlan")
    greeted(a, b, c)
    frame = a.send_frame(EVERYBODY, packets.udp(b"x"))
    answer = c.send_frame(a.mac, packets.udp(b"y"))
    world.run(1)

    assert (b.received, c.received, a.received) == ([frame], [frame], [answer])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x08\0\0\0\0\0\x09\0" + bytes(60), "vni"),
        (b"\0\0\0\0" + HEADER[4:] + bytes(60), "vxlan_flags"),
        (HEADER + bytes(13), "vxlan_short"),
        (HEADER + EVERYBODY + b"\3" + bytes(50), "frame_source"),
        (HEADER + arp(mac(66), "10.244.2.7", "10.9.9.9"), "neighbour"),
        (HEADER + mac(2) + mac(2) + bytes(50), "mac"),
    ],
)
def test_what_is_refused_is_counted(pair, payload, reason):
    _, b = pair
    arrive(b, payload)

    assert b.drops == {reason: 1}
    assert b.received == []


@pytest.mark.parametrize("count", [1, 3])
def test_packets_of_an_encapsulation_without_frames_are_refused_and_counted(world, count):
    _, b = world.clear_pair(encapsulation="udp")

    for _ in range(2):
        arrive(b, *[packets.udp(b"x")] * count)

    assert (b.received, b.drops) == ([], {"no_frame": 2 * count})


def test_a_frame_from_an_address_of_nobody_is_refused(pair):
    _, b = pair
    arrive(b, HEADER + mac(2) + mac(1) + bytes(50), source="198.51.100.9")

    assert b.drops == {"outer_source": 1}


def flow(node, other, count=4):
    """Return payloads with frames of one flow from *other* to *node*."""
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(1000 * count)), 1000)
    header = node.mac + other.mac + b"\x08\0"
    return [HEADER + header + packet for packet in packets.kernel_segments(whole, virtio)]


def test_frames_of_one_flow_are_counted_whole(pair):
    a, b = pair
    peer = b.peer()
    before = peer.traffic.rx_bytes, peer.traffic.rx_packets
    sent = flow(b, a)
    arrive(b, *sent)

    assert (peer.traffic.rx_bytes - before[0], peer.traffic.rx_packets - before[1]) == (
        sum(map(len, sent)),
        4,
    )


@pytest.mark.parametrize("at", range(8, 20))
def test_a_frame_with_another_ethernet_header_is_not_joined(at):
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    sent = flow(b, a)
    changed = bytearray(sent[1])
    changed[at] ^= 0x20 if at % 6 == 2 else 0x55
    sent[1] = bytes(changed)
    arrive(b, *sent)

    assert b.received == [payload[8:] for payload in sent]


def test_a_frame_of_another_network_is_not_joined():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    sent = flow(b, a)
    arrive(b, sent[0], sent[1][:6] + b"\x09" + sent[1][7:], *sent[2:])

    assert b.received == [payload[8:] for payload in (sent[0], *sent[2:])]
    assert b.drops == {"vni": 1}


def test_frames_of_one_flow_arrive_in_order_whatever_way_they_go(pair):
    a, b = pair
    sent = []
    for number in range(3):
        sent.append(a.send_frame(b.mac, packets.udp(bytes([number]) * 40)))
        sent.append(a.send_frame(mac(99), packets.udp(bytes([number]) * 40)))
        sent.append(a.send_frame(b.mac, packets.udp(bytes([number]) * 40)))
        sent += segments_of(a, b.mac, packets.udp(bytes([number]) * 3000), 1000)
    a.world.run(1)

    assert b.received == sent


def test_a_flow_from_a_refused_source_is_refused_whole():
    _, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(9000)), 1000)
    header = b.mac + mac(2) + b"\x08\0"
    arrive(b, *[HEADER + header + packet for packet in packets.kernel_segments(whole, virtio)])

    assert b.drops == {"mac": 9}


def test_a_mark_of_the_underlay_is_taken_into_the_packet(pair):
    a, b = pair
    for tos in (2, 0):
        arrive(b, HEADER + b.mac + a.mac + packets.with_ethertype(packets.udp(b"x", tos=tos)), tos=3)

    assert b.received == [b.mac + a.mac + packets.with_ethertype(packets.udp(b"x", tos=3))]
    assert b.drops == {"ecn": 1}


@pytest.mark.parametrize("size", [100, 9000])
@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
def test_what_a_kernel_left_to_its_card_is_finished(pair, size, tag):
    a, b = pair
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(size)), b.mtu - 40)
    header = b.mac + a.mac + tag + b"\x08\0"
    arrive(b, HEADER + header + whole)

    expected = packets.kernel_segments(whole, virtio) if size > b.mtu else [packets.tcp(bytes(size))]
    assert b.received == [header + packet for packet in expected]


@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
def test_a_padded_frame_is_finished_whatever_its_checksum_looks_like(pair, tag):
    a, b = pair
    packet = packet_that_looks_partial()
    frame = b.mac + a.mac + tag + b"\x08\0" + packet.ljust(46, b"\0")
    arrive(b, HEADER + frame)

    assert b.received == [frame]
    assert b.tun.writes[-1][:10] == packets.PLAIN


@cache
def packet_that_looks_partial():
    made = (packets.udp(b"ab", ports=(port, 7)) for port in range(65536))
    return next(packet for packet in made if looks_partial(packet))


def looks_partial(packet):
    """Return whether the checksum of *packet*, UDP, is that of its pseudo header,
    were the frame's padding part of it.
    """
    (found,) = struct.unpack_from("!H", packet, 26)
    return found == pseudo_header_sum(packet[12:16], packet[16:20], 17, 46 - 20)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("inherits", "ttl"), [(True, b"\x09\0\0\0"), (False, None)])
def test_the_ttl_of_a_frame_s_packet_is_inherited_where_that_is_asked_for(pair, version, inherits, ttl):
    a, b = pair
    controls = []
    for each in a.clear_sockets:
        send = each.sendmsg
        each.sendmsg = lambda buffers, ancillary, flags, at, send=send: (
            controls.append([row[2] for row in ancillary if row[:2] == (0, 2)]),
            send(buffers, [row for row in ancillary if row[:2] != (0, 2)], flags, at),
        )
    a.tell(link.SetNode(a.mtu, False, [], inherits, [a.mac]))

    packet = packets.udp(b"x", version=version, ttl=9)
    sent = [a.send_frame(destination, packet) for destination in (b.mac, EVERYBODY)]
    sent += segments_of(a, b.mac, packets.tcp(bytes(5000), version=version, ttl=9), 1340)
    sent.append(a.send_frame(b.mac, b"\x88\xb5" + bytes(46)))
    a.world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert controls[-1] == []
    assert {tuple(each) for each in controls[:-1]} == {(ttl,) if ttl else ()}


def test_a_peer_without_an_endpoint_gets_nothing(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, encapsulation="vxlan", endpoint=None)
    a.send_frame(EVERYBODY, packets.udp(b"x"))
    world.run(1)

    assert a.drops == {"no_endpoint": 1}


@examples(150)
@given(
    payloads=st.lists(st.binary(max_size=90), min_size=1, max_size=5),
    head=st.sampled_from(
        [b"", HEADER, HEADER + mac(2) + mac(1) + b"\x08\0\x45", HEADER + mac(2) + mac(1) + b"\x86\xdd\x60"]
    ),
    tos=st.integers(0, 3),
)
def test_any_payload_is_no_exception_and_never_spoofs(shared, payloads, head, tos):
    _, b = shared
    longest = max(map(len, payloads))
    before = len(b.received)
    arrive(b, *[(head + each).ljust(len(head) + longest, b"\0") for each in payloads], tos=tos)

    for frame in b.received[before:]:
        assert not frame[6] & 1
        assert frame[6:12] != b.mac


@examples(150)
@given(
    frame=st.binary(max_size=120),
    virtio=st.binary(min_size=10, max_size=10),
    ethertype=st.sampled_from([b"\x08\0\x45", b"\x86\xdd\x60", b"\x81\0\0\1\x08\0\x45", b""]),
    target=st.sampled_from([1, 2, 3]),
)
def test_any_bytes_of_the_tap_are_no_exception(shared, frame, virtio, ethertype, target):
    a, _ = shared
    for header in (virtio, bytes([1, virtio[1] % 6]) + virtio[2:6] + bytes([34, 0, 16, 0]), packets.PLAIN):
        a.tun.outgoing.append(header + mac(target) + mac(9) + ethertype + frame)

    a.core.outbound.drain(a.tun, a.world.clock.now)
    a.core.outbound.drain(a.tun, a.world.clock.now)
    a.tun.outgoing.clear()

    assert not a.core.sender.is_holding


def test_what_a_full_socket_keeps_is_not_overwritten(pair):
    a, b = pair
    sent = []
    for udp in a.clear_sockets:
        udp.is_full = True
    for number in range(4):
        sent += segments_of(a, b.mac, packets.tcp(bytes([number]) * 20_000, sequence=number * 20_000), 1340)
        sent.append(a.send_frame(b.mac, packets.udp(bytes([number]) * 40)))
    a.world.run(0)
    for udp in a.clear_sockets:
        udp.is_full = False
    a.world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert struct.pack("!H", 0x0800) == b.received[0][12:14]


def test_counters_tell_what_was_learnt(pair):
    a, b = pair
    a.send_frame(b.mac, packets.udp(b"x"), source=mac(77))
    a.world.run(1)
    b.tell(link.AskCounters(1))
    b.world.run(0)

    assert [row.learnt_macs for row in b.reported[-1].peers] == [2]


@pytest.mark.parametrize("payload", [HEADER + bytes(13), HEADER + mac(2) + mac(2) + bytes(50)])
def test_each_that_is_refused_is_counted_and_none_that_is_taken(pair, payload):
    a, b = pair
    frame = b.mac + a.mac + packets.with_ethertype(packets.udp(b"x"))
    for _ in range(2):
        arrive(b, payload)
        arrive(b, HEADER + frame)

    assert b.drops.total() == 2
    assert b.received == [frame] * 2


def test_a_flow_from_a_refused_source_is_counted_whole_each_time():
    _, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(4000)), 1000)
    header = b.mac + mac(2) + b"\x08\0"
    for _ in range(2):
        arrive(b, *[HEADER + header + packet for packet in packets.kernel_segments(whole, virtio)])

    assert b.drops == {"mac": 8}
    assert b.peer().traffic.rx_packets == 1  # the hello


def test_frames_are_counted_alone_and_in_flows_with_when_they_came(pair):
    a, b = pair
    peer = b.peer()
    before, b.world.clock.now = (peer.traffic.rx_packets, peer.traffic.rx_bytes), b.world.clock.now + 5
    alone = HEADER + b.mac + a.mac + packets.with_ethertype(packets.udp(b"x"))
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(3500)), 1000)
    header = b.mac + a.mac + b"\x08\0"
    sent = [alone, *(HEADER + header + packet for packet in packets.kernel_segments(whole, virtio)), alone]

    arrive(b, *sent)

    assert peer.traffic.rx_packets - before[0] == len(sent)
    assert peer.traffic.rx_bytes - before[1] == sum(map(len, sent))
    assert peer.contact.last_received == b.world.clock.now
    assert b.received == [each[8:] for each in sent]


@pytest.mark.parametrize("count", [1, 4])
def test_frames_from_nobodys_address_are_counted_each_time(pair, count):
    _, b = pair
    for _ in range(2):
        arrive(b, *[HEADER + mac(2) + mac(1) + bytes(50)] * count, source="198.51.100.9")

    assert b.drops == {"outer_source": 2 * count}


def test_frames_of_two_networks_at_one_address_go_to_their_own():
    world = World(is_tap=True)
    a, b, c = (world.node(name) for name in "abc")
    one, two = (
        a.know_in_the_clear(
            each, encapsulation="vxlan", identifier=vni, endpoint=(b.addresses[0], CLEAR_PORT)
        )
        for each, vni in ((b, 7), (c, 8))
    )
    for vni, count in ((7, 2), (8, 3)):
        header = b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0"
        frames = [
            header + EVERYBODY + mac(vni) + packets.with_ethertype(packets.udp(bytes([number]) * 40))
            for number in range(count)
        ]
        arrive(a, *frames, source=b.addresses[0])

    assert (a.peer(one).traffic.rx_packets, a.peer(two).traffic.rx_packets) == (2, 3)
    assert not a.drops


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_partial", [False, True])
def test_a_syn_in_a_frame_announces_no_more_than_the_way_back_takes(pair, version, is_partial):
    a, b = pair
    packet = syn(8960, version)
    if is_partial:
        packet, _ = packets.as_super_packet(packet, 1)

    arrive(b, HEADER + b.mac + a.mac + packets.with_ethertype(packet))

    (frame,) = b.received
    assert mss_of(frame[14:]) < 1460
    assert packets.is_l4_checksum_right(frame[14:])


@pytest.mark.parametrize(
    ("error", "reason"), [(BlockingIOError(), "tun_full"), (OSError(5, "EIO"), "tun_refused")]
)
@pytest.mark.parametrize("count", [1, 3])
def test_what_the_tap_does_not_take_is_counted_for_its_sender(count, error, reason):
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    b.tun.error = error

    arrive(b, *flow(b, a, count))

    assert b.peer().drops == {reason: 1}


@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
@pytest.mark.parametrize("count", [2, 4])
def test_frames_of_one_flow_enter_in_one_write(build, count):
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    whole, virtio = packets.as_super_packet(build(bytes(1000 * count)), 1000)
    header = b.mac + a.mac + b"\x08\0"
    sent = [header + packet for packet in packets.kernel_segments(whole, virtio)]
    before = len(b.tun.writes)

    arrive(b, *(HEADER + frame for frame in sent))

    assert b.received == sent
    assert len(b.tun.writes) - before == 1


@pytest.mark.parametrize("missing", [1, 10, 900, 1030])
def test_a_last_frame_that_was_cut_short_is_joined_with_no_other(missing):
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    sent = flow(b, a)
    sent[-1] = sent[-1][:-missing]

    arrive(b, *sent)

    assert b.received == [payload[8:] for payload in sent]


def test_of_frames_of_one_flow_that_are_padded_every_packet_arrives():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(4)), 1)
    header = b.mac + a.mac + b"\x08\0"
    sent = [header + packet for packet in packets.kernel_segments(whole, virtio)]

    arrive(b, *(HEADER + frame + bytes(5) for frame in sent))

    assert [frame[: len(sent[0])] for frame in b.received] == sent


def test_frames_of_two_stations_that_are_no_ip_leave_from_one_port():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    flights = watch(a.world)
    for number in range(20):
        a.send_frame(b.mac, b"\x88\xb5" + bytes([number]) * 60)
    a.world.run(1)

    assert len(flights) == 20
    assert len({flight.source for flight in flights}) == 1


@pytest.mark.parametrize("count", [2, 4])
def test_a_mark_of_the_underlay_is_taken_into_each_packet_of_a_flow(count):
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    whole, virtio = packets.as_super_packet(packets.tcp(bytes(1000 * count), tos=2), 1000)
    header = HEADER + b.mac + a.mac + b"\x08\0"

    arrive(b, *(header + packet for packet in packets.kernel_segments(whole, virtio)), tos=3)

    assert [frame[15] & 3 for frame in b.received] == [3] * count


def trains(node, other, *counts, source=None):
    """Return payloads with frames of so many flows, of *counts* frames whose last is shorter,
    from *other* to *node*.
    """
    header = HEADER + node.mac + (source or other.mac) + b"\x08\0"
    made = []
    for number, count in enumerate(counts):
        whole = packets.tcp(bytes(1000 * count - 100), ports=(4000 + number, 80))
        made += [header + packet for packet in packets.kernel_segments(*packets.as_super_packet(whole, 1000))]
    return made


def test_frames_of_two_flows_in_one_receive_are_counted_whole_and_their_station_is_learnt():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    peer = b.peer()
    before, b.world.clock.now = (
        (peer.traffic.rx_packets, peer.traffic.rx_bytes, len(b.tun.writes)),
        b.world.clock.now + 5,
    )
    # The kernel does not merge anything behind a shorter datagram, so the first flow is complete.
    sent = [*flow(b, a, 2), *trains(b, a, 3)]
    sent = [each[:14] + mac(77) + each[20:] for each in sent]

    arrive(b, *sent)

    assert b.received == [each[8:] for each in sent]
    assert len(b.tun.writes) - before[2] == 2
    assert (peer.traffic.rx_packets - before[0], peer.traffic.rx_bytes - before[1]) == (
        5,
        sum(map(len, sent)),
    )
    assert peer.contact.last_received == b.world.clock.now
    b.tell(link.AskCounters(1))
    b.world.run(0)
    assert [row.learnt_macs for row in b.reported[-1].peers] == [2]


def test_flows_from_a_refused_source_in_one_receive_are_each_refused():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    sent = [each[:14] + mac(2) + each[20:] for each in (*flow(b, a, 2), *trains(b, a, 3))]

    arrive(b, *sent)

    assert (b.received, b.drops) == ([], {"mac": 5})


def test_a_frame_of_another_network_before_those_of_a_flow_is_refused_alone():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    sent = flow(b, a)

    arrive(b, sent[0][:6] + b"\x09" + sent[0][7:], *sent[1:])

    assert b.received == [payload[8:] for payload in sent[1:]]
    assert b.drops == {"vni": 1}


@pytest.mark.parametrize("left", [1, 8, 9, 14, 20, 21])
def test_a_last_frame_that_ends_in_its_header_is_refused_and_the_others_are_not(left):
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    sent = flow(b, a)
    arrive(b, *sent)  # so that whole frames are in the buffer
    b.received.clear()

    arrive(b, *sent[:-1], sent[-1][:left])

    assert b.received == [payload[8:] for payload in sent[:-1]]
    assert b.drops.total() == 1


def test_a_frame_that_was_cut_is_not_finished_whatever_its_checksum_looks_like():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    packet = bytearray(packets.udp(bytes(60)))
    packet[2:4] = (len(packet) + 4).to_bytes(2, "big")
    value = packets.ones_complement_sum(packets.pseudo_header(bytes(packet), len(packet) - 20))
    packet[26:28] = value.to_bytes(2, "big")
    frame = b.mac + a.mac + b"\x08\0" + packets.with_ip_checksum(bytes(packet))

    arrive(b, HEADER + frame)

    assert b.received == [frame]
    assert b.tun.writes[-1][:10] == packets.PLAIN


def test_a_frame_of_another_flow_before_those_of_one_keeps_none_of_them_back():
    a, b = greeted(*World(is_tap=True).clear_pair(encapsulation="vxlan"))
    other = trains(b, a, 2)[:1]
    sent = [*other, *(each[:50] + bytes([7]) + each[51:] for each in flow(b, a, 1)), *flow(b, a, 3)]

    arrive(b, *sent)

    assert b.received == [each[8:] for each in sent]


@pytest.mark.parametrize("options", [b"", bytes.fromhex("01020102deadbeefdeadbeef01027f00")])
def test_frames_of_geneve_are_found_behind_options_one_by_one_and_joined(world, options):
    a, b = greeted(*world.clear_pair(encapsulation="geneve"))
    header = bytes((len(options) // 4, 0)) + b"\x65\x58" + VNI.to_bytes(3, "big") + b"\0"
    frames = [payload[8:] for payload in flow(b, a)]

    arrive(b, *(header + options + each for each in frames))

    assert b.received == frames
    assert not b.drops + b.peer().drops


def test_a_frame_of_geneve_is_sent_without_options(world):
    a, b = greeted(*world.clear_pair(encapsulation="geneve"))
    flights = watch(world)

    frame = a.send_frame(b.mac, packets.udp(b"hello"))
    world.run(1)

    assert [flight.datagram for flight in flights] == [b"\0\0\x65\x58\0\0\x07\0" + frame]
