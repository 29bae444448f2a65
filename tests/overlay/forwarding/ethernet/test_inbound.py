from __future__ import annotations

import errno
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.link import messages as link
from overlay.wire import frames
from overlay.wire.messages import TAG_SIZE, TRANSPORT_HEADER
from tests import packets
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.overlay.forwarding.core_bench import Bench
from tests.overlay.forwarding.ethernet.test_bridge import EVERYBODY, arp, mac
from tests.overlay.forwarding.ethernet.test_outbound import greeted
from tests.sim import World


class TapBench:
    """Node b with a session from a, and methods that forge what arrives at b.  A third peer, c, has no session."""

    def __init__(self, *, has_gro=True, ciphers=(), joins_udp=True):
        self.world = World(has_gro=has_gro, is_tap=True, ciphers=ciphers)
        self.a, self.b, self.c = (self.world.node(name) for name in "abc")
        self.b.joins_udp = joins_udp
        self.b.restart_forwarder()
        self.a.know(self.b, macs=[self.b.mac])
        self.b.know(self.a, macs=[self.a.mac], addresses=[self.a.inner()])
        self.b.know(self.c, macs=[self.c.mac], addresses=[self.c.inner()], endpoint=None)
        greeted(self.a, self.b)
        self.world.run(1)
        self.source = (self.a.addresses[0], self.a.port)
        self.before = self.b.drops

    def sealed(self, payload):
        """Return a genuine datagram of a with any *payload*."""
        keypair = self.a.peer().keypairs.current
        counter, keypair.counter = keypair.counter, keypair.counter + 1
        sealed = bytearray(len(payload) + TAG_SIZE)
        keypair.seal(struct.pack("<4xQ", counter), payload, None, sealed)
        return TRANSPORT_HEADER.pack(4, keypair.remote_index, counter) + sealed

    def arrive(self, *payloads, tos=0):
        """Let b receive *payloads* of a now."""
        destination = (self.b.addresses[0], self.b.port)
        datagrams = [self.sealed(each) for each in payloads]
        self.b.sockets[0].inbox += [Flight(self.source, destination, each, tos) for each in datagrams]
        self.world.run(0)

    def frame(self, packet, source=None, tag=b""):
        return self.b.mac + (source or self.a.mac) + tag + packets.with_ethertype(packet)

    @property
    def dropped(self):
        return self.b.drops - self.before


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return TapBench(has_gro=request.param)


@pytest.fixture(scope="module")
def shared():
    """One bench for many examples: refused datagrams may not change it."""
    return TapBench()


REFUSED = {
    "an IP packet": (lambda b: packets.udp(b"x"), "no_frame"),
    "an IPv6 packet": (lambda b: packets.udp(b"x", version=6), "no_frame"),
    "another kind of payload": (lambda b: b"\xe1\0" + b.frame(packets.udp(b"x")), "no_frame"),
    "half an Ethernet header": (lambda b: b"\xe0\0" + bytes(13), "frame_short"),
    "too many zeros": (lambda b: b"\xe0\xff" + b.frame(packets.udp(b"x")), "frame_padding"),
    "a source that is a group": (
        lambda b: frames.build(b.frame(packets.udp(b"x"), b"\3" + bytes(5))),
        "frame_source",
    ),
    "the static address of another": (lambda b: frames.build(b.frame(packets.udp(b"x"), b.c.mac)), "mac"),
    "the address of this node": (lambda b: frames.build(b.frame(packets.udp(b"x"), b.b.mac)), "mac"),
    "an ARP answer for another": (
        lambda b: frames.build(arp(mac(66), b.c.inner(), "10.9.9.9", operation=2)),
        "neighbour",
    ),
    "an ARP request for another": (
        lambda b: frames.build(arp(mac(66), "10.244.3.77", "10.9.9.9")),
        "neighbour",
    ),
    "an ARP answer for this node": (
        lambda b: frames.build(arp(mac(66), b.b.inner(), "10.9.9.9", operation=2)),
        "neighbour",
    ),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_counted_and_changes_nothing(bench, make, reason):
    for _ in range(2):
        bench.arrive(make(bench))

    assert bench.dropped == {reason: 2}
    assert bench.b.received == []
    assert bench.b.core.bridge.locate(mac(66), bench.world.clock.now) is None


@pytest.mark.parametrize("reply_to", ["10.9.9.9", "10.244.1.77"])
def test_a_peer_may_say_who_has_its_own_addresses_and_nobodys(bench, reply_to):
    frame = arp(mac(66), reply_to, "10.9.9.1", operation=2)
    bench.arrive(frames.build(frame))

    assert bench.b.received == [frame]


def test_a_station_of_this_side_comes_back_from_nowhere(bench):
    bench.b.send_frame(EVERYBODY, packets.udp(b"x"), source=mac(88))
    bench.world.run(0)
    bench.arrive(frames.build(bench.frame(packets.udp(b"x"), mac(88))))

    assert bench.dropped["frame_loop"] == 1
    assert bench.b.received == []


def test_an_agent_with_a_tun_refuses_frames():
    bench = Bench()
    bench.arrive(bench.sealed(frames.build(bytes(12) + b"\x08\0" + bench.packet())))

    assert bench.dropped == {"frame": 1}
    assert bench.b.received == []


def opened_unit(packet, header, segment=1000):
    """Return an opened unit as it is in its buffer, with room for a virtio header."""
    whole, virtio = packets.as_super_packet(packet, segment)
    meta = bytes([virtio[1], len(header)]) + struct.pack("<H", segment)
    return memoryview(bytearray(bytes(6) + meta + whole + header))


def deliver_unit(bench, unit, mark=0):
    bench.b.core.inbound.deliver_unit(bench.b.peer(), unit, 1420, mark, bench.world.clock.now)


HEADER = {4: mac(2) + mac(1) + b"\x08\0", 6: mac(2) + mac(1) + b"\x86\xdd"}
UNITS = {
    "of an agent with a tun": (packets.tcp(bytes(5000)), b"", "no_frame"),
    "with another EtherType": (packets.tcp(bytes(5000)), HEADER[6], "unit_packet"),
    "with half a header": (packets.tcp(bytes(5000)), HEADER[4][:13], "unit_packet"),
    "with more than a header": (packets.tcp(bytes(5000)), HEADER[4] + b"\0\0", "unit_packet"),
    "with half a VLAN tag": (packets.tcp(bytes(5000)), HEADER[4][:12] + b"\x81\0", "unit_packet"),
    "from another's address": (packets.tcp(bytes(5000)), mac(2) + mac(3) + b"\x08\0", "mac"),
    "that is no super-packet": (packets.tcp(bytes(500)), HEADER[4], "unit_packet"),
}


@pytest.mark.parametrize(("packet", "header", "reason"), UNITS.values(), ids=UNITS.keys())
def test_units_are_refused(bench, packet, header, reason):
    deliver_unit(bench, opened_unit(packet, header))

    assert bench.dropped == {reason: 1}
    assert bench.b.received == []


def test_a_unit_shorter_than_the_header_that_it_claims_is_refused(bench):
    deliver_unit(bench, memoryview(bytearray(bytes(6) + b"\1\xff" + bytes(200))))

    assert bench.dropped == {"no_frame": 1}


@pytest.mark.parametrize("version", [4, 6])
def test_a_unit_takes_the_mark_of_the_underlay(bench, version):
    deliver_unit(
        bench, opened_unit(packets.tcp(bytes(5000), tos=2, version=version), HEADER[version]), mark=3
    )

    whole, virtio = packets.as_super_packet(packets.tcp(bytes(5000), tos=3, version=version), 1000)
    assert bench.b.received == [HEADER[version] + each for each in packets.kernel_segments(whole, virtio)]


def test_an_agent_with_a_tun_refuses_units_with_a_header():
    bench = Bench()
    unit = opened_unit(
        packets.tcp(bytes(5000), source=bench.a.inner(), destination=bench.b.inner()), HEADER[4]
    )
    deliver_unit(bench, unit)

    assert bench.dropped == {"unit_meta": 1}


def test_zeros_behind_a_frame_are_cut_off_and_those_of_the_frame_are_not(bench):
    frame = bench.frame(packets.udp(b"x")) + bytes(7)
    bench.arrive(frames.build(frame, 9))

    assert bench.b.received == [frame]


@pytest.mark.parametrize(("mark", "inner", "expected"), [(3, 2, 3), (1, 2, 1), (2, 2, 2), (2, 0, 0)])
@pytest.mark.parametrize("version", [4, 6])
def test_a_mark_of_the_underlay_is_taken_into_the_packet(bench, version, mark, inner, expected):
    make = [packets.udp(b"x", version=version, tos=tos) for tos in (inner, expected)]
    bench.arrive(frames.build(bench.frame(make[0])), tos=mark)

    assert bench.b.received == [bench.frame(make[1])]


def test_a_mark_for_who_cannot_hear_of_it_drops_the_frame_and_teaches_nothing(bench):
    bench.arrive(frames.build(bench.frame(packets.udp(b"x"), mac(66))), tos=3)

    assert bench.dropped == {"ecn": 1}
    assert bench.b.core.bridge.locate(mac(66), bench.world.clock.now) is None


def test_a_mark_on_what_is_no_ip_packet_is_nothing(bench):
    frame = bench.frame(b"\x88\xb5" + bytes(20))
    bench.arrive(frames.build(frame), tos=3)

    assert bench.b.received == [frame]


def test_a_syn_is_clamped_to_what_the_path_back_takes(bench):
    bench.b.peer().path.mtu = 1216
    bench.arrive(frames.build(bench.frame(packets.tcp(b"", flags=packets.SYN, tcp_options=b"\2\4\5\xb4"))))

    assert int.from_bytes(bench.b.received[0][14 + 42 : 14 + 44], "big") == 1200 - 40


def test_a_syn_is_clamped_to_what_fits(bench):
    bench.arrive(frames.build(bench.frame(packets.tcp(b"", flags=packets.SYN, tcp_options=b"\2\4\5\xb4"))))

    (frame,) = bench.b.received
    assert int.from_bytes(frame[14 + 42 : 14 + 44], "big") == bench.b.mtu - 40
    assert packets.is_l4_checksum_right(frame[14:])


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EIO])
def test_a_tap_that_takes_nothing_is_counted(bench, code):
    bench.b.tun.error = OSError(code, "")
    for _ in range(2):
        bench.arrive(frames.build(bench.frame(packets.udp(b"x"))))

    assert bench.dropped == {"tun_full" if code == errno.EAGAIN else "tun_refused": 2}


# Many at once


def train(bench, count=12, size=1000, **more):
    """Return the frames of one flow, as a sender segments them."""
    body = random.Random(count).randbytes(count * size - 100)
    whole, virtio = packets.as_super_packet(packets.tcp(body), size)
    return [bench.frame(packet, **more) for packet in packets.kernel_segments(whole, virtio)]


def payloads(sent):
    """Return payloads of one size except for the last, as they arrive from a sender."""
    return [frames.build(frame, -(len(frame) + 2) % 16) for frame in sent]


@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\5"])
def test_frames_of_one_flow_are_written_as_one(tag):
    bench = TapBench()
    sent = train(bench, tag=tag)
    before = len(bench.b.tun.writes)
    bench.arrive(*payloads(sent))

    assert bench.b.received == sent
    assert len(bench.b.tun.writes) == before + 1
    assert bench.b.peer().traffic.rx_packets == len(sent) + 1


@pytest.mark.parametrize("joins_udp", [True, False])
def test_udp_is_written_as_one_where_the_kernel_takes_that(joins_udp):
    bench = TapBench(joins_udp=joins_udp)
    sent = [bench.frame(packets.udp(bytes(100), identifier=number)) for number in range(5)]
    before = len(bench.b.tun.writes)
    bench.arrive(*payloads(sent))

    assert bench.b.received == sent
    assert len(bench.b.tun.writes) == before + (1 if joins_udp else 5)


@pytest.mark.parametrize("last", [60, 400, 999])
@pytest.mark.parametrize("at", [0, 2])
def test_frames_that_stay_alone_beside_joined_ones_are_as_long_as_they_were(last, at):
    """Behind the last, which is shorter, is what came before; and what is no packet tells no length."""
    bench = TapBench()
    alone = [bench.frame(packets.udp(bytes([n]) * 1012, ports=(n, 9))) for n in range(1, 3)]
    sent = [*train(bench, 3)[:2]]
    sent[at:at] = alone
    sent.append(bench.frame(packets.udp(b"." * last, ports=(7, 7))))
    padded = payloads(sent)
    assert len({len(each) for each in padded[:-1]}) == 1
    before = len(bench.b.tun.writes)
    bench.arrive(*padded)

    assert bench.b.received == sent
    assert [len(write) - 10 for write in bench.b.tun.writes[before:]][-1] == len(sent[-1])


@pytest.mark.parametrize("at", range(12))
def test_a_frame_with_another_ethernet_header_is_not_joined(at):
    bench = TapBench()
    sent = train(bench, 3)
    place = at % 12
    changed = bytearray(sent[1])
    changed[place] ^= 0x20 if place % 6 == 0 else 0x55
    sent[1] = bytes(changed)
    bench.arrive(*payloads(sent))

    assert bench.b.received == sent


def test_frames_with_another_vlan_are_not_joined():
    bench = TapBench()
    sent = [
        bench.frame(frame[14:], tag=bytes([0x81, 0, 0, number % 2]))
        for number, frame in enumerate(train(bench))
    ]
    bench.arrive(*payloads(sent))

    assert bench.b.received == sent


def test_a_joined_flow_from_a_refused_source_is_refused_whole():
    bench = TapBench()
    sent = train(bench, source=bench.c.mac)
    bench.arrive(*payloads(sent))

    assert bench.dropped == {"mac": len(sent)}
    assert bench.b.received == []


def test_frames_that_begin_like_a_flow_and_go_on_otherwise_arrive():
    bench = TapBench()
    sent = [*train(bench, 3)[:2], bench.frame(b"\x88\xb5" + bytes(1050)), *train(bench, 3)[:2]]
    bench.arrive(*payloads(sent))

    assert bench.b.received == sent


@examples(150)
@given(
    contents=st.lists(st.binary(max_size=120), min_size=1, max_size=6),
    first=st.sampled_from([b"\xe0\0", b"\xe0\x05", b"\x45\0", b"\x60\0", b"\xe0"]),
    ethertype=st.sampled_from([b"\x08\0\x45", b"\x86\xdd\x60", b"\x81\0\0\1\x08\0\x45", b"\x08\6"]),
    tos=st.integers(0, 3),
    is_alike=st.booleans(),
)
def test_any_payload_is_no_exception_and_never_spoofs(shared, contents, first, ethertype, tos, is_alike):
    bench = shared
    longest = max(map(len, contents))
    head = first + (mac(2) + mac(1) + ethertype if is_alike else b"")
    before = len(bench.b.received)

    bench.arrive(*[(head + each).ljust(len(head) + longest, b"\0") for each in contents], tos=tos)

    for frame in bench.b.received[before:]:
        assert frame[6:12] not in {bench.b.mac, bench.c.mac}
        assert not frame[6] & 1


@examples(150)
@given(frame=st.binary(min_size=14, max_size=200), padding=st.integers(0, 15))
def test_any_frame_that_is_accepted_arrives_unchanged(frame, padding):
    bench = TapBench()
    frame = frame[:6] + bench.a.mac + b"\x88\xb5" + frame[14:]
    bench.arrive(frames.build(frame, padding))

    assert bench.b.received == [frame]


def test_stations_beyond_the_bound_are_counted_at_their_peer_and_the_bound_may_change(bench):
    b = bench.b
    b.tell(link.SetNode(b.mtu, False, [], macs=[b.mac], stations=2))
    bench.arrive(*[frames.build(bench.frame(packets.udp(b"x"), source=mac(n)), 0) for n in (11, 12, 13)])
    assert bench.dropped == {"stations_full": 1}

    b.tell(link.SetNode(b.mtu, False, [], macs=[b.mac], stations=5))
    bench.arrive(*[frames.build(bench.frame(packets.udp(b"x"), source=mac(n)), 0) for n in (14, 15, 16)])

    assert b.peer().drops["stations_full"] == 1
    assert b.core.bridge.learnt(1, bench.world.clock.now) == 5


@pytest.mark.parametrize(("inner", "mark", "expected"), [(2, 3, 3), (2, 1, 1), (2, 2, 2), (1, 3, 3)])
def test_frames_of_one_flow_that_come_at_once_take_the_mark_of_their_path(bench, inner, mark, expected):
    whole = packets.tcp(bytes(4000), source=bench.a.inner(), destination=bench.b.inner(), tos=inner)
    train = packets.kernel_segments(*packets.as_super_packet(whole, 1000))

    bench.arrive(*[frames.build(bench.frame(packet)) for packet in train], tos=mark)

    marks = [frame[14 + 1] & 3 for frame in bench.b.received]
    assert marks == [expected] * 4


def test_frames_whose_first_bytes_look_like_packets_of_one_flow_stay_frames(bench):
    whole = packets.tcp(bytes(4000), source="10.9.9.9", destination="10.9.9.8")
    train = packets.kernel_segments(*packets.as_super_packet(whole, 1000))

    bench.arrive(*[frames.build(packet) for packet in train])

    assert bench.b.received == train


def test_payloads_of_another_kind_that_hold_packets_of_one_flow_are_refused_as_such(bench):
    whole = packets.tcp(bytes(4000), source="10.9.9.9", destination="10.9.9.8")
    train = packets.kernel_segments(*packets.as_super_packet(whole, 1000))

    bench.arrive(*[b"\xe1\0\0" + packet for packet in train])

    assert bench.dropped == {"no_frame": len(train)}
    assert bench.b.received == []
