from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.clear.inbound import place_of
from overlay.forwarding.underlay.arrival import Arrival
from overlay.forwarding.underlay.received import Received
from overlay.link import messages as link
from overlay.wire.ethernet import ARP
from overlay.wire.icmp import in_ipv4, too_big_v4
from overlay.wire.ip import CE, ECT_0, NOT_ECT
from peers.mac import derived_mac
from tests import packets
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import CLEAR_PORT, PORT, VNI, World

STRANGER = "203.0.113.66"


@pytest.fixture(params=[True, False], ids=["gro", "no gro"])
def world(request):
    return World(has_gro=request.param)


def arrive(world, node, *payloads, source, port=40000, tos=0, to=CLEAR_PORT):
    for payload in payloads:
        world.network.send(Flight((source, port), (node.addresses[0], to), payload, tos))
    world.run(1)


@pytest.fixture(scope="module")
def shared():
    world = World()
    return world, *world.clear_pair()


def test_no_handshake_is_made_and_no_session_asked_for(world):
    a, b = world.clear_pair()

    a.send(b, 3)
    b.send(a, 3)
    world.run(300)

    assert world.network.sent
    assert {kind for _, _, kind, _ in world.network.sent} == {"unknown"}  # bare packets
    assert not a.reported + b.reported


def test_a_damaged_segment_is_joined_with_no_other():
    world = World()
    a, b = world.clear_pair()
    segments = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=5440, tcp=True), 1360))
    segments[1] = segments[1][:-1] + bytes([segments[1][-1] ^ 1])

    arrive(world, a, *segments, source=b.addresses[0])

    assert a.received == segments
    assert len(a.tun.writes) > 1


def genuine(sender, receiver, *, size=20, tcp=False, version=4, **ip):
    ends = {"source": sender.inner(version), "destination": receiver.inner(version), "version": version, **ip}
    return packets.tcp(bytes(size), **ends) if tcp else packets.udp(bytes(size), **ends)


@pytest.mark.parametrize("count", [1, 4])
def test_only_a_peer_s_endpoint_may_send_from_any_port(world, count):
    a, b = world.clear_pair()
    packet = genuine(b, a)

    arrive(world, a, *[packet] * count, source=STRANGER, port=CLEAR_PORT)
    assert (a.received, a.drops) == ([], {"outer_source": count})

    arrive(world, a, *[packet] * count, source=b.addresses[0], port=40000)
    assert a.received == [packet] * count
    assert a.peer().endpoint == (b.addresses[0], CLEAR_PORT)


def test_payloads_of_a_stranger_are_counted_each_though_the_last_is_shorter(world):
    a, b = world.clear_pair()
    payloads = [genuine(b, a, size=100)] * 3 + [genuine(b, a, size=50)]

    arrive(world, a, *payloads, source=STRANGER)

    assert a.drops == {"outer_source": 4}


@pytest.mark.parametrize("is_tcp", [True, False])
def test_an_inner_source_that_is_not_the_peer_s_is_refused(world, is_tcp):
    a, b = world.clear_pair()
    segments = [genuine(b, a, source="10.9.9.9")] * 3
    if is_tcp:
        whole = genuine(b, a, size=4080, tcp=True, source="10.9.9.9")
        segments = packets.kernel_segments(*packets.as_super_packet(whole, 1360))

    arrive(world, a, *segments, source=b.addresses[0])

    assert (a.received, a.peer().drops) == ([], {"source": 3})


def test_sources_are_taken_as_far_as_no_longer_prefix_is_somebody_else_s(world):
    a, b, c = (world.node(name) for name in "abc")
    a.know(c)
    number = a.know_in_the_clear(b, sources=["0.0.0.0/0", "10.244.3.128/25"])

    for source, is_taken in (
        ("198.51.100.9", True),
        ("10.244.3.1", False),  # from c
        ("10.244.3.129", True),  # from c, which has a longer prefix
        (a.inner(), False),
        (b.inner(), True),
    ):
        before = len(a.received)
        arrive(world, a, genuine(b, a, source=source), source=b.addresses[0])
        assert (len(a.received) > before) == is_taken, source
    assert a.peer(number).drops == {"source": 2}


def test_sources_are_taken_by_their_whole_ipv6_address(world):
    a, b = (world.node(name) for name in "ab")
    number = a.know_in_the_clear(b, sources=["2001:db8:1::/64"])

    for source, is_taken in (("2001:db8:1::9", True), ("2001:db8:2::9", False)):
        before = len(a.received)
        arrive(world, a, genuine(b, a, version=6, source=source), source=b.addresses[0])
        assert (len(a.received) > before) == is_taken, source
    assert a.peer(number).drops == {"source": 1}


def test_a_source_that_is_named_as_exactly_as_another_s_subnet_is_taken(world):
    a, b, c = (world.node(name) for name in "abc")
    a.know(c, subnets=["10.244.3.0/24", "0.0.0.0/0"])
    number = a.know_in_the_clear(b, sources=["0.0.0.0/0", "10.244.3.0/24"])

    for source in ("198.51.100.9", "10.244.3.1"):
        arrive(world, a, genuine(b, a, source=source), source=b.addresses[0])

    assert len(a.received) == 2
    assert a.peer(number).drops == {}


def test_two_peers_at_one_address_are_told_apart_by_their_packets(world):
    a, b, c = (world.node(name) for name in "abc")
    one, two = (a.know_in_the_clear(each, endpoint=(b.addresses[0], port)) for each, port in ((b, 1), (c, 2)))

    arrive(world, a, genuine(b, a), genuine(c, a), source=b.addresses[0])

    assert len(a.received) == 2
    assert (a.peer(one).traffic.rx_packets, a.peer(two).traffic.rx_packets) == (1, 1)


def test_nothing_is_taken_in_the_clear_from_an_encrypted_peer_nor_sent_so_to_it(world):
    a, b = world.pair()
    c = world.node("c")
    a.know_in_the_clear(c)

    arrive(world, a, genuine(b, a), source=b.addresses[0])
    assert (a.received, a.drops) == ([], {"outer_source": 1})
    arrive(world, a, genuine(b, a), source=c.addresses[0])
    assert (a.received, a.drops) == ([], {"outer_source": 1, "source": 1})
    arrive(world, a, genuine(c, a), source=c.addresses[0], to=PORT)
    assert a.received == []

    sent = a.send(b, 2)
    world.run(1)
    assert b.received == sent
    assert not sum(each.sends for each in a.clear_sockets)


def test_an_encrypted_and_a_clear_peer_are_served_side_by_side(world):
    a, b = world.pair()
    c = world.node("c")
    a.know_in_the_clear(c)
    c.know_in_the_clear(a)

    for _ in range(3):
        to_b, to_c = a.send(b, 4), a.send(c, 4)
        to_b += a.send_super(b, 8000)
        to_c += a.send_super(c, 8000)
        world.run(1)
        assert sorted(b.received) == sorted(to_b)
        assert sorted(c.received) == sorted(to_c)
        b.received.clear()
        c.received.clear()


def test_a_peer_that_has_moved_is_no_longer_heard_at_its_old_address(world):
    a, b = world.clear_pair()

    a.tell(link.SetEndpoint(1, (STRANGER, CLEAR_PORT), "dns"))

    arrive(world, a, genuine(b, a), source=b.addresses[0])
    assert (a.received, a.drops) == ([], {"outer_source": 1})
    arrive(world, a, genuine(b, a), source=STRANGER)
    assert len(a.received) == 1


def test_a_removed_peer_is_heard_no_more_and_its_sockets_close(world):
    a, b = world.clear_pair()

    a.route([], b.subnets)
    a.tell(link.RemovePeer(1))
    a.tell(link.Sockets("udp", []))

    arrive(world, a, genuine(b, a), source=b.addresses[0])
    assert (a.received, a.drops) == ([], {"outer_source": 1})
    world.run(20)
    assert all(each.is_closed for each in a.clear_sockets)
    assert {each.port for each in a.sockets} == {PORT}


@pytest.mark.parametrize("is_train", [False, True])
@pytest.mark.parametrize(("inner", "is_taken"), [(NOT_ECT, False), (ECT_0, True), (CE, True)])
def test_a_congestion_mark_goes_inside_or_the_packet_is_dropped(world, is_train, inner, is_taken):
    a, b = world.clear_pair()
    sent = [genuine(b, a, tos=inner)] * (3 if is_train else 1)

    arrive(world, a, *sent, source=b.addresses[0], tos=CE)

    assert len(a.received) == (len(sent) if is_taken else 0)
    assert all(packet[1] & 3 == CE and packets.is_ip_checksum_right(packet) for packet in a.received)
    assert a.drops == ({} if is_taken else {"ecn": len(sent)})


# A kernel with FOU as the far end, which leaves work to its network card


def unfinished(packet):
    return packets.as_super_packet(packet, 1)[0]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_checksums_that_a_kernel_left_to_its_card_are_finished(world, version, is_tcp, count):
    a, b = world.clear_pair()
    packet = genuine(b, a, size=1000, tcp=is_tcp, version=version)

    arrive(world, a, *[unfinished(packet)] * count, source=b.addresses[0])

    assert unfinished(packet) != packet
    assert a.received == [packet] * count


def test_segments_that_a_kernel_cut_without_finishing_them_are_finished(world):
    a, b = world.clear_pair()
    segments = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=5440, tcp=True), 1360))

    arrive(world, a, *map(unfinished, segments), source=b.addresses[0])

    assert a.received == segments


@pytest.mark.parametrize("version", [4, 6])
def test_segments_that_a_kernel_has_merged_are_cut_again(world, version):
    a, b = world.clear_pair()
    whole = genuine(b, a, size=10 * 1300, tcp=True, version=version)

    arrive(world, a, unfinished(whole), source=b.addresses[0])

    assert len(a.received) == 10
    assert all(len(packet) <= a.mtu and packets.is_l4_checksum_right(packet) for packet in a.received)
    headers = packets.l4_start(whole) + 20
    assert b"".join(packet[headers:] for packet in a.received) == whole[headers:]


def test_datagrams_that_a_kernel_has_merged_are_dropped(world):
    a, b = world.clear_pair()

    arrive(world, a, unfinished(genuine(b, a, size=4000)), source=b.addresses[0])

    assert (a.received, a.drops) == ([], {"udp_merged": 1})


def test_merged_segments_are_cut_to_what_icmp_tells_on_its_way_to_the_far_end(world):
    a, b = world.clear_pair()
    told = in_ipv4(too_big_v4(genuine(b, a), 1200), bytes([10, 244, 1, 9]), bytes([10, 244, 2, 1]))
    a.tun.outgoing.append(packets.PLAIN + told)
    world.run(1)

    arrive(world, a, unfinished(genuine(b, a, size=10 * 1300, tcp=True)), source=b.addresses[0])

    assert max(map(len, a.received)) <= 1200


@pytest.mark.parametrize(
    "command",
    [
        link.SetPeer(1, 0.0, "wireguard"),
        link.SetPeer(9, 0.0, "carrier pigeon"),
        link.Sockets("carrier pigeon", []),
    ],
)
def test_what_the_agent_never_says_changes_nothing(world, command):
    a, b = world.clear_pair()

    a.tell(command)

    assert a.drops == {"link": 1}
    sent = a.send(b)
    world.run(1)
    assert b.received == sent


@examples(200)
@given(
    payloads=st.lists(
        st.binary(max_size=80)
        | st.builds(
            lambda head, body, cut: (head + body)[:cut],
            st.sampled_from([b"\x45\x00\x00\x3c", b"\x60\x00\x00\x00\x00\x14\x06\x40", b"\x45\x00"]),
            st.binary(max_size=80),
            st.integers(0, 84),
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
    assert all(packets.parsed(packet) for packet in a.received)


# What one receive may contain besides a peer's packets


def framed(packet, *, vni=VNI, to="a", extra=b""):
    kind = b"\x08\0" if packet[:1] < b"\x60" else b"\x86\xdd"
    return (
        b"\x08\0\0\0"
        + vni.to_bytes(3, "big")
        + b"\0"
        + derived_mac(to)
        + derived_mac("b")
        + kind
        + packet
        + extra
    )


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize(
    ("how", "reason"), [({"vni": VNI + 1}, "vni"), ({"vni": VNI ^ 0x800000}, "vni"), ({"to": "c"}, "mac")]
)
def test_merged_frames_of_another_network_or_for_another_are_each_refused(world, count, how, reason):
    a, b = world.clear_pair(encapsulation="vxlan")
    segments = packets.kernel_segments(
        *packets.as_super_packet(genuine(b, a, size=count * 500, tcp=True), 500)
    )

    arrive(world, a, *[framed(each, **how) for each in segments], source=b.addresses[0])

    assert len(segments) == count
    assert (a.tun.writes, a.received) == ([], [])
    assert a.drops == {reason: count}


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("how", [{"vni": VNI + 1}, {"to": "c"}])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_one_such_frame_among_a_peers_is_refused_alone(world, count, how, place):
    a, b = world.clear_pair(encapsulation="vxlan")
    segments = packets.kernel_segments(
        *packets.as_super_packet(genuine(b, a, size=count * 500, tcp=True), 500)
    )
    frames = [framed(each) for each in segments]
    frames[place] = framed(segments[place], **how)

    arrive(world, a, *frames, source=b.addresses[0])

    del segments[place]
    assert a.received == segments
    assert a.drops.total() == 1


@pytest.mark.parametrize("left", range(23))
@pytest.mark.parametrize("count", [2, 9])
def test_a_last_payload_that_ends_in_its_header_is_refused_and_the_others_are_not(world, count, left):
    a, b = world.clear_pair(encapsulation="vxlan")
    segments = packets.kernel_segments(
        *packets.as_super_packet(genuine(b, a, size=(count + 1) * 500, tcp=True), 500)
    )
    frames = [framed(each) for each in segments[:count]]

    arrive(world, a, *frames, framed(segments[count])[:left], source=b.addresses[0])

    assert a.received == segments[:count]
    assert a.drops.total() == 1


def test_the_place_of_a_peer_is_its_encapsulation_and_its_address(world):
    a, b, c = (world.node(name) for name in "abc")
    a.know_in_the_clear(b)
    a.know_raw(c, "ipip", endpoint=(c.addresses[0], 0))

    world.network.send(Flight((b.addresses[0], 0), (a.addresses[0], 0), genuine(b, a), protocol=4))
    arrive(world, a, genuine(c, a), source=c.addresses[0])

    assert (a.received, a.drops) == ([], {"outer_source": 2})


@pytest.mark.parametrize(("interface", "is_taken"), [(2, True), (3, False)])
def test_a_link_local_peer_is_taken_by_its_own_interface_alone(world, interface, is_taken):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, endpoint=("fe80::1", CLEAR_PORT, 0, 2))
    udp = next(each for each in a.core.sender.sockets if each.clear is not None and each.family != 2)
    payload = genuine(b, a)
    source = ("fe80::1", CLEAR_PORT, 0, interface)

    received = Received(len(payload))
    received.view[:] = payload
    received.udp, received.arrival, received.source, received.now = udp, Arrival([]), source, 1.0
    received.size = received.stride = len(payload)

    a.core.inbound.clear.take(received)

    assert bool(a.received) == is_taken
    assert a.drops == ({} if is_taken else {"outer_source": 1})


@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
def test_what_came_is_counted_alone_and_in_trains_with_when_it_came(world, encapsulation):
    a, b = world.clear_pair(encapsulation=encapsulation)
    b.send(a)
    world.run(1)

    b.send_super(a, 30 * 1360 - 7)
    b.send(a, 2)
    b.send_super(a, 3000, 1000, version=6)
    world.run(1)

    (here, there) = (a.peer().traffic, b.peer().traffic)
    assert (here.rx_packets, here.rx_bytes) == (there.tx_packets, there.tx_bytes) == (36, there.tx_bytes)
    assert a.peer().contact.last_received == pytest.approx(world.clock.now - 1 + world.network.delay)


def test_a_peer_that_moves_leaves_the_other_at_its_old_address(world):
    a, b, c = (world.node(name) for name in "abc")
    one, two = (a.know_in_the_clear(each, endpoint=(b.addresses[0], port)) for each, port in ((b, 1), (c, 2)))

    a.tell(link.SetEndpoint(one, (STRANGER, CLEAR_PORT), "dns"))
    arrive(world, a, genuine(b, a), genuine(c, a), source=b.addresses[0])

    assert (a.peer(one).traffic.rx_packets, a.peer(two).traffic.rx_packets) == (0, 1)
    assert a.peer(two).drops == {"source": 1}
    a.tell(link.SetEndpoint(two, (STRANGER, CLEAR_PORT), "dns"))
    arrive(world, a, genuine(b, a), genuine(c, a), source=STRANGER)
    assert (a.peer(one).traffic.rx_packets, a.peer(two).traffic.rx_packets) == (1, 2)


def test_what_is_wrong_with_a_packet_is_counted_for_its_sender_and_else_for_the_first_at_that_address(world):
    a, b, c = (world.node(name) for name in "abc")
    one, two = (a.know_in_the_clear(each, endpoint=(b.addresses[0], port)) for each, port in ((b, 1), (c, 2)))

    for _ in range(2):
        arrive(world, a, genuine(c, a, tos=NOT_ECT), source=b.addresses[0], tos=CE)
        arrive(world, a, genuine(a, b), source=b.addresses[0])

    assert a.peer(one).drops == {"source": 2}
    assert a.peer(two).drops == {"ecn": 2}


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
@pytest.mark.parametrize(("version", "announced"), [(4, 1300 - 40), (6, 1300 - 60)])
def test_a_syn_that_comes_announces_no_more_than_the_way_back_takes(
    world, encapsulation, version, announced, is_partial
):
    a, b = world.clear_pair(encapsulation=encapsulation)
    a.peer().path.mtu = 1300
    ends = {"source": b.inner(version), "destination": a.inner(version)}
    packet = syn(1460, version, **ends)
    payload = unfinished(packet) if is_partial else packet

    arrive(world, a, framed(payload) if encapsulation == "vxlan" else payload, source=b.addresses[0])

    (got,) = a.received
    assert mss_of(got) == announced
    assert packets.is_l4_checksum_right(got)


def test_a_syn_that_comes_announces_no_more_than_the_tun_takes(world):
    a, b = world.clear_pair()

    arrive(world, a, syn(8960, source=b.inner(), destination=a.inner()), source=b.addresses[0])

    assert mss_of(a.received[0]) == a.mtu - 40


@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_packets_of_one_flow_enter_in_one_write(encapsulation, build):
    world = World()
    a, b = world.clear_pair(encapsulation=encapsulation)
    whole = build(bytes(10 * 500), source=b.inner(), destination=a.inner())
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 500))

    arrive(
        world,
        a,
        *(framed(each) if encapsulation == "vxlan" else each for each in sent),
        source=b.addresses[0],
    )

    assert a.received == sent
    assert len(a.tun.writes) == 1


@pytest.mark.parametrize(
    ("error", "reason"), [(BlockingIOError(), "tun_full"), (OSError(5, "EIO"), "tun_refused")]
)
@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
@pytest.mark.parametrize("size", [100, 3000])
def test_what_the_tun_does_not_take_is_counted_for_its_sender(encapsulation, size, error, reason):
    world = World()
    a, b = world.clear_pair(encapsulation=encapsulation)
    a.tun.error = error

    b.send_super(a, size, 1360)
    world.run(1)

    assert a.peer().drops == {reason: 1}


@pytest.mark.parametrize("tos", [0x48, 0x60, 0xFC])
def test_a_syn_is_one_whatever_its_class(world, tos):
    a, b = world.clear_pair()

    arrive(world, a, syn(8960, source=b.inner(), destination=a.inner(), tos=tos), source=b.addresses[0])

    assert mss_of(a.received[0]) == a.mtu - 40


@pytest.mark.parametrize("has_gro", [True, False])
def test_a_question_where_an_address_of_ours_is_is_answered_by_its_tunnel(has_gro):
    world = World(has_gro=has_gro)
    a, b = world.clear_pair(encapsulation="vxlan")
    answers = []
    world.network.lose = lambda flight: flight.source[0] == a.addresses[0] and answers.append(flight.datagram)
    addresses = [ip_address(each).packed for each in (b.inner(), a.inner())]
    body = ARP.pack(1, 0x0800, 6, 4, 1, derived_mac("b"), addresses[0], bytes(6), addresses[1])
    question = framed(body)[:20] + b"\x08\x06" + body

    arrive(world, a, question, question, source=b.addresses[0])

    assert len(answers) == 2
    assert not a.drops


@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
def test_two_flows_in_one_receive_are_counted_to_the_byte_with_when_they_came(encapsulation):
    world = World()
    a, b = world.clear_pair(encapsulation=encapsulation)
    sent = []
    for port, size in ((4000, 2000), (4001, 2900)):  # the last packet of all is shorter
        whole = genuine(b, a, size=size, tcp=True, ports=(port, 80))
        sent += packets.kernel_segments(*packets.as_super_packet(whole, 1000))
    payloads = [framed(each) if encapsulation == "vxlan" else each for each in sent]

    arrive(world, a, *payloads, source=b.addresses[0])

    assert a.received == sent
    assert len(a.tun.writes) == 2
    assert (a.peer().traffic.rx_packets, a.peer().traffic.rx_bytes) == (5, sum(map(len, payloads)))
    assert a.peer().contact.last_received == pytest.approx(world.clock.now - 1 + world.network.delay)


@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("missing", [1, 40, 999])
def test_a_last_packet_that_was_cut_short_is_refused_whatever_lay_behind_it(encapsulation, count, missing):
    world = World()
    a, b = world.clear_pair(encapsulation=encapsulation)
    whole = genuine(b, a, size=1000 * count, tcp=True)
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 1000))
    payloads = [framed(each) if encapsulation == "vxlan" else each for each in sent]
    arrive(world, a, *payloads, source=b.addresses[0])  # so that the missing bytes are in the buffer
    a.received.clear()

    arrive(world, a, *payloads[:-1], payloads[-1][:-missing], source=b.addresses[0])

    assert a.received == sent[:-1]
    assert a.drops.total() == 1


def test_at_a_place_without_a_peer_there_is_no_peer():
    a, _ = World().clear_pair()
    clear, peer = a.core.inbound.clear, a.peer()

    place = place_of(peer.encapsulation, peer.endpoint)
    assert clear.peers_at(place) == [peer]
    clear.move(peer, None)
    assert clear.peers_at(place) == []


@pytest.mark.parametrize(
    ("inner", "mark", "expected"), [(ECT_0, CE, CE), (ECT_0, 1, 1), (ECT_0, ECT_0, ECT_0)]
)
@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
def test_payloads_of_one_flow_take_the_mark_of_their_path(world, encapsulation, inner, mark, expected):
    a, b = world.clear_pair(encapsulation=encapsulation)
    whole = genuine(b, a, size=4000, tcp=True, tos=inner)
    train = packets.kernel_segments(*packets.as_super_packet(whole, 1000))
    payloads = [framed(each) if encapsulation == "vxlan" else each for each in train]

    arrive(world, a, *payloads, source=b.addresses[0], tos=mark)

    assert [packet[1] & 3 for packet in a.received] == [expected] * 4


def test_a_payload_behind_those_of_a_flow_is_noted_with_when_it_came(world):
    a, b = world.clear_pair()
    train = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=2000, tcp=True), 1000))
    world.run(5)
    began = world.clock.now

    arrive(world, a, *train, genuine(b, a, size=1012), source=b.addresses[0])

    assert len(a.received) == 3
    assert began <= a.peer().contact.last_received <= world.clock.now


def test_a_flow_that_comes_in_several_receives_enters_in_one_write():
    world = World()
    a, b = world.clear_pair()
    b.gro_count = 4

    sent = a.send_super(b, 12 * 1360)
    world.run(1)

    assert (b.received, len(b.tun.writes)) == (sent, 1)
