from __future__ import annotations

import random
import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.keypair import GOES_OVER_WITHIN
from overlay.forwarding.underlay.batching import PROBE
from overlay.link import messages as link
from overlay.session.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from tests import packets
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.core_bench import Bench
from tests.sim import World


@pytest.fixture(scope="module")
def shared():
    """One bench for many examples: refused datagrams may not change it."""
    return Bench()


# What is refused

REFUSED = {
    "nothing": (lambda b: b"", "unknown_type"),
    "one byte": (lambda b: b"\4", "unknown_type"),
    "an unknown type": (lambda b: b"\5\0\0\0" + bytes(60), "unknown_type"),
    "a reserved byte": (lambda b: b"\4\0\0\1" + b.sealed(b.packet())[4:], "unknown_type"),
    "a header alone": (lambda b: b.sealed(b.packet())[:16], "transport_short"),
    "a tag cut off": (lambda b: b.sealed(b"")[:31], "transport_short"),
    "a tail cut off": (lambda b: b.sealed(b.packet())[:-1], "transport_auth"),
    "a byte too many": (lambda b: b.sealed(b.packet()) + b"x", "transport_auth"),
    "an index of nobody": (lambda b: b"\4\0\0\0\1\2\3\4" + b.sealed(b.packet())[8:], "unknown_index"),
    "another counter": (lambda b: raise_counter(b.sealed(b.packet())), "transport_auth"),
    "another key": (lambda b: b.sealed(b.packet())[:16] + bytes(96), "transport_auth"),
    "a flipped bit": (lambda b: flip(b.sealed(b.packet()), -20), "transport_auth"),
    "a keepalive for nobody": (lambda b: b"\4\0\0\0\1\2\3\4" + b.sealed(b"")[8:], "unknown_index"),
    "version 5": (lambda b: b.sealed(b"\x55" + bytes(31)), "inner_version"),
    "half a packet": (lambda b: b.sealed(b.packet()[:40]), "inner_length"),
    "a short IPv4 header": (lambda b: b.sealed(b"\x45" + bytes(15)), "inner_short"),
    "a short IPv6 header": (lambda b: b.sealed(b"\x60" + bytes(31)), "inner_short"),
    "a spoofed source": (lambda b: b.sealed(b.packet(source="10.244.9.9")), "source"),
    "the receiver as source": (lambda b: b.sealed(b.packet(source=b.b.inner())), "source"),
    "a spoofed IPv6 source": (
        lambda b: b.sealed(packets.udp(b"x", version=6, source="fd00:9::9", destination=b.b.inner(6))),
        "source",
    ),
    "an initiation too short": (lambda b: b"\1\0\0\0" + bytes(100), "initiation_size"),
    "a response too long": (lambda b: b"\2\0\0\0" + bytes(89), "response_size"),
    "a cookie too long": (lambda b: b"\3\0\0\0" + bytes(61), "cookie_size"),
    "an initiation for another": (lambda b: b"\1\0\0\0" + bytes(144), "mac1"),
}


def flip(datagram, at):
    changed = bytearray(datagram)
    changed[at] ^= 1
    return bytes(changed)


def raise_counter(datagram):
    return datagram[:8] + (2**40).to_bytes(8, "little") + datagram[16:]


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "source", [("192.0.2.1", 51820), ("198.51.100.9", 9)], ids=["its own address", "another"]
)
def test_a_refused_datagram_is_counted_and_changes_nothing(bench, make, reason, source):
    is_genuine = reason.startswith(("inner", "source"))
    before = bench.peer.endpoint, bench.peer.traffic.rx_packets

    for _ in range(2):
        bench.arrive(make(bench), source=source)

    assert bench.dropped == {reason: 2}
    assert bench.b.tun.writes[1:] == []
    assert (bench.peer.endpoint, bench.peer.traffic.rx_packets) == (
        (source, before[1]) if is_genuine else before
    )
    assert bench.b.refused == ({reason: 1} if reason == "mac1" else {})  # of those the agent is shown some


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_genuine_neighbours_of_a_refused_datagram_arrive(bench, make, reason):
    sent = [bench.packet(number) for number in range(4)]
    one, two, three, four = (bench.sealed(packet + bytes(8)) for packet in sent)

    bench.arrive(one, two, make(bench), three, four)

    assert bench.b.received == sent
    assert bench.dropped == {reason: 1}


def test_a_replay_is_refused_alone_in_a_batch_and_within_one(bench):
    sent = [bench.packet(number) for number in range(3)]
    one, two, three = (bench.sealed(packet + bytes(8)) for packet in sent)
    bench.arrive(one)
    bench.arrive(one)
    bench.arrive(two, one, two, three, three)

    assert bench.b.received == sent
    assert bench.dropped == {"replay": 4}


def test_bytes_are_counted_for_what_was_authentic_and_new(bench):
    before = bench.peer.traffic.rx_bytes
    good, bad = bench.sealed(bench.packet() + bytes(8)), flip(bench.sealed(bench.packet() + bytes(8)), -1)

    bench.arrive(good, good, bad)

    assert bench.peer.traffic.rx_bytes - before == len(good)


def test_counters_out_of_order_are_taken_and_those_out_of_the_window_not(bench):
    order = [20_000, 19_000, 20_001, 11_000, 20_001]
    sent = [bench.packet(number) for number in range(len(order))]

    bench.arrive(
        *(bench.sealed(packet + bytes(8), counter) for packet, counter in zip(sent, order, strict=True))
    )

    assert bench.b.received == sent[:3]
    assert bench.dropped == {"replay": 2}


@pytest.mark.parametrize("is_alone", [True, False])
def test_the_last_counters_are_refused(bench, is_alone):
    order = [REJECT_AFTER_MESSAGES] if is_alone else [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1]

    bench.arrive(*(bench.sealed(bench.packet() + bytes(8), counter) for counter in order))

    assert bench.b.received == []
    assert bench.dropped == {"replay": len(order)}


@pytest.mark.parametrize("make", [packets.udp, packets.tcp])
def test_a_train_from_a_spoofed_source_is_refused_whole(bench, make):
    addresses = {"source": "10.244.9.9", "destination": bench.b.inner()}
    train = []
    for number in range(5):
        more = {"sequence": 1 + number * 100} if make is packets.tcp else {}
        train.append(bench.sealed(make(bytes(100), identifier=number, **more, **addresses) + bytes(4)))

    bench.arrive(*train)

    assert bench.b.received == []
    assert bench.dropped == {"source": 5}


def test_an_oversized_datagram_is_counted(bench):
    answers = [(65535, [], socket.MSG_TRUNC, bench.source)] * 2

    def receive(buffers, size):
        if not answers:
            raise BlockingIOError
        return answers.pop()

    bench.socket.recvmsg_into = receive
    while bench.core.inbound.drain(bench.core.sender.sockets[0], bench.world.clock.now):
        pass

    assert bench.dropped == {"oversized": 2}


def test_an_icmp_error_of_the_underlay_is_counted(bench):
    calls = []

    def receive(buffers, size):
        calls.append(1)
        raise ConnectionRefusedError if len(calls) < 3 else BlockingIOError

    bench.socket.recvmsg_into = receive
    while bench.core.inbound.drain(bench.core.sender.sockets[0], bench.world.clock.now):
        pass

    assert bench.dropped == {"udp_error": 2}


def test_an_ecn_mark_for_who_cannot_hear_of_it_is_dropped(bench):
    for count in (1, 3):
        bench.arrive(*(bench.sealed(bench.packet(tos=0) + bytes(8)) for _ in range(count)), tos=3)

    assert bench.dropped == {"ecn": 4}
    assert bench.b.received == []


@pytest.mark.parametrize("error", [BlockingIOError(11, "EAGAIN"), OSError(5, "EIO")])
def test_a_tun_that_takes_nothing_is_counted(bench, error):
    bench.b.tun.error = error
    for _ in range(2):
        bench.arrive(bench.sealed(bench.packet()))

    assert bench.dropped == {"tun_full" if isinstance(error, BlockingIOError) else "tun_refused": 2}


def test_padding_is_cut_off_however_long(bench):
    packet = bench.packet()
    bench.arrive(bench.sealed(packet + bytes(100)))

    assert bench.b.received == [packet]


@pytest.mark.parametrize("size", range(1, 17))
def test_equal_datagrams_that_are_too_short_for_anything_are_each_counted(bench, size):
    for kind, reason in ((b"\xff", "unknown_type"), (b"\4\0\0\0", "transport_short")):
        before = bench.dropped.total()

        bench.arrive(*[kind.ljust(size, b"\0")[:size]] * 5)

        assert bench.dropped.total() - before == 5
        if size >= len(kind):
            assert bench.dropped[reason] == 5


# Any bytes

kinds = st.sampled_from([b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"])
headed = st.tuples(kinds, st.sampled_from([b"", b"index"]), st.binary(max_size=160))


@examples(150)
@given(datagrams=st.lists(headed.map(list) | st.binary(max_size=80), max_size=5), segment=st.integers(0, 100))
def test_any_datagrams_are_dropped_and_counted(shared, datagrams, segment):
    bench = shared
    keypair = bench.peer.keypairs.current
    index = keypair.local_index.to_bytes(4, "little")
    built = [d if isinstance(d, bytes) else d[0] + (index if d[1] else b"") + d[2] for d in datagrams]
    before = (
        sum(bench.dropped.values()),
        bench.peer.endpoint,
        len(bench.b.tun.writes),
        bench.peer.traffic.rx_bytes,
    )
    bench.b.reported.clear()

    bench.arrive(*built, source=("198.51.100.9", 9))

    reported = sum(isinstance(report, link.Handshake) for report in bench.b.reported)
    dropped, endpoint, writes, rx_bytes = before
    assert sum(bench.dropped.values()) + reported == dropped + len(built)
    assert (bench.peer.endpoint, len(bench.b.tun.writes), bench.peer.traffic.rx_bytes) == (
        endpoint,
        writes,
        rx_bytes,
    )


@examples(150)
@given(data=st.binary(max_size=700), segment=st.integers(1, 200), known=st.booleans())
def test_any_merged_receive_is_dropped(shared, data, segment, known):
    bench = shared
    index = bench.peer.keypairs.current.local_index.to_bytes(4, "little")
    if known and segment >= 32:  # a table of forged messages
        data = b"".join(
            (b"\4\0\0\0" + index + data[at + 8 : at + segment])[: len(data) - at]
            for at in range(0, len(data), segment)
        )
    control = [(17, 104, struct.pack("=i", segment))]
    answers = [(len(data), control, 0, ("198.51.100.9", 9))]

    def receive(buffers, size):
        if not answers:
            raise BlockingIOError
        buffers[0][: len(data)] = data
        return answers.pop()

    before = len(bench.b.tun.writes), bench.peer.endpoint
    bench.socket.recvmsg_into = receive
    bench.core.inbound.drain(bench.core.sender.sockets[0], bench.world.clock.now)
    del bench.socket.recvmsg_into

    assert (len(bench.b.tun.writes), bench.peer.endpoint) == before


@examples(150)
@given(
    plaintexts=st.lists(st.binary(max_size=120), min_size=1, max_size=6),
    first=st.sampled_from([0x45, 0x60, 0x81]),
)
def test_any_payload_of_a_peer_is_no_exception_and_never_spoofs(shared, plaintexts, first):
    bench = shared
    allowed = [packets.ip_address(bench.a.inner(version)).packed for version in (4, 6)]
    longest = max(map(len, plaintexts))
    sealed = [bench.sealed((bytes([first]) + each).ljust(longest + 1, b"\0")) for each in plaintexts]
    before = len(bench.b.received)

    bench.arrive(*sealed)

    for packet in bench.b.received[before:]:
        source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        assert source in allowed or source[:3] == allowed[0][:3] or source[:8] == allowed[1][:8]


@examples(150)
@given(
    packet=st.binary(max_size=300),
    virtio=st.binary(min_size=10, max_size=10),
    first=st.sampled_from([0x45, 0x60]),
)
def test_any_bytes_of_the_tun_are_no_exception(shared, packet, virtio, first):
    bench = shared
    packet = bytes([first]) + packet
    destination = packets.ip_address(bench.a.inner(4 if first == 0x45 else 6)).packed
    at = 16 if first == 0x45 else 24
    for data in (packet, packet[:at] + destination + packet[at + len(destination) :]):
        for header in (
            virtio,
            bytes([1, virtio[1] % 6]) + virtio[2:6] + bytes([20, 0, 16, 0]),
            packets.PLAIN,
        ):
            bench.b.tun.outgoing.append(header + data)
    bench.b.tun.outgoing.append(b"")
    bench.b.tun.outgoing.append(virtio)

    bench.core.outbound.drain(bench.b.tun, bench.world.clock.now)
    bench.b.tun.outgoing.clear()

    assert not bench.core.sender.is_holding


def test_packets_of_the_largest_size_fit_the_arena(bench):
    bench.b.mtu = 65535
    bench.b.tell(link.SetNode(65535, False, []))
    chance = random.Random(1)
    for size in (65535, 65500, 65535, 65535, 1, 65535):
        body = chance.randbytes(max(0, size - 28))
        packet = packets.udp(body, source=bench.b.inner(), destination=bench.a.inner())
        bench.b.tun.outgoing.append(packets.PLAIN + packet)
    bench.world.run(1)

    assert bench.dropped["too_big"] == 5
    assert len(bench.a.received) == 1


# From the tun


def test_a_partial_checksum_is_finished(bench):
    for version in (4, 6):
        for make in (packets.udp, packets.tcp):
            whole = make(
                b"hello", version=version, source=bench.b.inner(version), destination=bench.a.inner(version)
            )
            start = packets.l4_start(whole)
            packet, virtio = packets.as_super_packet(whole, 100)
            bench.b.tun.outgoing.append(struct.pack("<BBHHHH", 1, 0, 0, 0, start, virtio[8]) + packet)
            bench.world.run(1)
            assert bench.a.received.pop() == whole


def test_a_udp_checksum_of_zero_is_sent_as_ones(bench):
    addresses = {"source": bench.b.inner(), "destination": bench.a.inner()}
    without = packets.udp(bytes(2), **addresses)[26:28]  # the sum's complement, which makes zero with it
    whole = packets.udp(without, **addresses)
    assert whole[26:28] == b"\xff\xff"
    packet, _ = packets.as_super_packet(whole, 100)
    bench.b.tun.outgoing.append(struct.pack("<BBHHHH", 1, 0, 0, 0, 20, 6) + packet)
    bench.world.run(1)

    assert bench.a.received == [whole]


@pytest.mark.parametrize(("start", "offset"), [(19, 6), (20, 200), (100, 6), (65535, 65535)])
def test_a_checksum_outside_the_packet_is_refused(bench, start, offset):
    packet = packets.udp(b"hello", source=bench.b.inner(), destination=bench.a.inner())
    bench.b.tun.outgoing += [struct.pack("<BBHHHH", 1, 0, 0, 0, start, offset) + packet] * 2
    bench.world.run(1)

    assert bench.dropped == {"tun_malformed": 2}


@pytest.mark.parametrize("packet", [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x15" + bytes(40)])
def test_what_is_no_packet_is_refused(bench, packet):
    bench.b.tun.outgoing += [packets.PLAIN + packet] * 2
    bench.world.run(1)

    assert bench.dropped == {"tun_malformed": 2}


def test_our_own_datagram_on_its_way_into_the_tunnel_is_a_loop(bench):
    bench.b.route([("192.0.2.0/24", 1)])
    ports = (bench.b.port, bench.a.port)
    looping = packets.udp(
        b"x" * 100, source=bench.b.addresses[0], destination=bench.a.addresses[0], ports=ports
    )
    another = packets.udp(b"x", source=bench.b.addresses[0], destination=bench.a.addresses[0], ports=(7, 7))
    bench.b.tun.outgoing += [packets.PLAIN + looping, packets.PLAIN + another, packets.PLAIN + looping]
    before = len(bench.world.network.sent)
    bench.world.run(0)

    assert bench.dropped == {"loop": 2}
    assert len(bench.world.network.sent) == before + 1


def test_a_packet_for_an_own_subnet_is_answered_with_unreachable(bench):
    packet = packets.udp(b"x", source=bench.b.inner(), destination="10.244.2.77")
    bench.b.tun.outgoing += [packets.PLAIN + packet] * 2
    bench.world.run(0)

    assert bench.dropped == {"own_subnet": 2}
    assert bench.b.received[0][20:22] == bytes([3, 1])


@pytest.fixture
def busy(bench):
    """Packets arrive many at a time, and are read in batches."""
    bench.b.send(bench.a, 3 * PROBE)
    bench.world.run(1)
    bench.a.received.clear()
    return bench


def test_small_packets_leave_together_by_size(busy):
    bench, before = busy, busy.socket.sends
    sent = [packet for size in (100, 100, 100, 40, 100, 200) for packet in bench.b.send(bench.a, size=size)]
    bench.world.run(1)

    assert bench.a.received == sent
    assert bench.socket.sends - before == 3  # 100 100 100 40, 100, 200


def test_more_than_one_send_takes_are_several(busy):
    bench, before = busy, busy.socket.sends
    sent = bench.b.send(bench.a, 64, size=1300) + bench.b.send(bench.a, 130, size=40)
    bench.world.run(1)

    assert bench.a.received == sent
    assert bench.socket.sends - before <= 7


def test_packets_of_different_ecn_fields_leave_apart(bench):
    outer = []
    bench.world.network.lose = lambda flight: bool(outer.append(flight.tos))
    for field in (0, 0, 2, 2, 1, 0):
        bench.b.send(bench.a, tos=field)
    bench.world.run(1)

    assert outer[:6] == [0, 0, 2, 2, 1, 0]


def test_two_hundred_small_packets_that_waited_leave_in_sends_of_64():
    world = World()
    a, b = world.pair()
    sent = a.send(b, 200, size=20)
    world.run(1)

    assert b.received == sent
    assert a.sockets[0].sends == 1 + 4  # the initiation; 64 + 64 + 64 + 8


def test_packets_of_several_peers_are_gathered_each():
    world = World()
    hub, *spokes = (world.node(name) for name in ("hub", "one", "two", "three"))
    for spoke in spokes:
        hub.know(spoke)
        spoke.know(hub)
        hub.send(spoke)
    world.run(1)
    before = hub.sockets[0].sends
    for _ in range(10):
        for spoke in spokes:
            hub.send(spoke)
    world.run(1)

    assert [len(spoke.received) for spoke in spokes] == [11, 11, 11]
    assert hub.sockets[0].sends - before == 3


# Counters of a keypair


def test_a_keypair_used_often_asks_for_another_and_still_works(bench):
    bench.b.peer().keypairs.current.counter = REKEY_AFTER_MESSAGES - 1
    sent = bench.b.send(bench.a, 2)
    bench.world.run(1)

    assert bench.a.received == sent
    assert len(bench.world.sent("initiation", "b")) == 1


def test_a_keypair_used_up_sends_no_more(bench):
    bench.b.peer().keypairs.current.counter = REJECT_AFTER_MESSAGES
    sent = bench.b.send(bench.a)
    bench.world.run(1)

    assert bench.a.received == sent  # under a new one
    assert len(bench.world.sent("initiation", "b")) == 1


def test_a_keypair_settles_when_further_messages_under_it_would_move_nothing(bench):
    peer, before = bench.peer, bench.peer.keypairs.current
    late = [bench.sealed(bench.packet(number)) for number in range(2)]
    bench.arrive(bench.sealed(bench.packet(2)))
    assert peer.keypairs.settled is before

    before.counter = REKEY_AFTER_MESSAGES - 1
    bench.b.send(bench.a)
    bench.world.run(1)
    assert peer.keypairs.previous is before

    bench.arrive(late[0])
    assert peer.keypairs.settled is None
    bench.world.run(GOES_OVER_WITHIN)
    bench.arrive(late[1])
    assert peer.keypairs.settled is before


def test_at_most_64_datagrams_leave_in_one_send(bench):
    """As many as the kernel accepts."""
    outbound, raw, sizes = bench.core.outbound, bench.socket, []
    send = raw.sendmsg
    raw.sendmsg = lambda buffers, *more: sizes.append(len(buffers)) or send(buffers, *more)

    for _ in range(65):
        outbound.queue(bench.peer, memoryview(bytes(32)), 32, 0)
    outbound.flush_peer(bench.peer)

    assert sizes == [64, 1]


@pytest.mark.parametrize("version", [4, 6])
def test_packets_that_are_alike_are_looked_up_by_their_destination_and_nothing_else(bench, version):
    bench.b.send(bench.a, 3 * PROBE, version=version)
    bench.world.run(1)
    table = bench.core.table
    table.remembered.clear()
    asked, find = [], table.find
    table.find = lambda address: asked.append(address) or find(address)

    sent = bench.b.send(bench.a, 40, version=version)
    bench.world.run(1)

    assert bench.a.received[-40:] == sent
    assert set(asked) == {ip_address(bench.a.inner(version)).packed}


def test_bytes_of_those_that_are_new_are_counted_where_the_last_is_shorter(bench):
    datagrams = [bench.sealed(bench.packet(number, 1000)) for number in range(12)]
    datagrams.append(bench.sealed(bench.packet(12, 100)))
    bench.arrive(datagrams[3])
    before = bench.peer.traffic.rx_bytes

    bench.arrive(*datagrams)

    assert bench.dropped["replay"] == 1
    assert bench.peer.traffic.rx_bytes - before == sum(map(len, datagrams)) - len(datagrams[3])
