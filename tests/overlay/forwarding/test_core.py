from __future__ import annotations

import math
import random
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.cookies import CookieHolder
from overlay.encap.encapsulation import Ends
from overlay.forwarding.admission import UNDER_LOAD_WAITING
from overlay.forwarding.callers import CALLERS
from overlay.forwarding.counters import PEERS_PER_MESSAGE
from overlay.forwarding.underlay.batching import PROBE
from overlay.link import messages as link
from overlay.session.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from overlay.session.outputs import GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.messages import TAG_SIZE, TRANSPORT_HEADER, CookieReply
from tests import packets
from tests.hypothesis_profiles import examples
from tests.network import FakeSocket, Flight
from tests.sim import World


class Bench:
    """Node b with a session from a, and a hand to forge what arrives at b."""

    def __init__(self, *, has_gro=True):
        self.world = World(has_gro=has_gro)
        self.a, self.b = self.world.pair()
        self.a.send(self.b)
        self.world.run(1)
        self.b.send(self.a)
        self.world.run(1)
        self.a.received.clear()
        self.b.received.clear()
        self.core, self.peer, self.socket = self.b.core, self.b.peer(), self.b.sockets[0]
        self.source = (self.a.addresses[0], self.a.port)

    def sealed(self, plaintext, counter=None):
        """Return a genuine datagram of a with any *plaintext*, under any *counter*."""
        keypair = self.a.peer().keypairs.current
        if counter is None:
            counter, keypair.counter = keypair.counter, keypair.counter + 1
        sealed = bytearray(len(plaintext) + TAG_SIZE)
        keypair.seal(struct.pack("<4xQ", counter), plaintext, None, sealed)
        return TRANSPORT_HEADER.pack(4, keypair.remote_index, counter) + sealed

    def arrive(self, *datagrams, source=None, tos=0):
        """Let b receive *datagrams* now."""
        destination = (self.b.addresses[0], self.b.port)
        self.socket.inbox += [Flight(source or self.source, destination, each, tos) for each in datagrams]
        self.world.run(0)

    def packet(self, mark=0, size=60, **ip):
        addresses = {"source": self.a.inner(), "destination": self.b.inner(), **ip}
        return packets.udp(mark.to_bytes(4, "big").ljust(size, b"."), **addresses)

    @property
    def dropped(self):
        """What the forwarder dropped, and what the agent refused that it was shown."""
        return self.b.drops + self.b.refused


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return Bench(has_gro=request.param)


@pytest.fixture(scope="module")
def shared():
    """One bench for many examples: nothing that is refused may change it."""
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
    """Packets come many at a time, and batches are taken of them."""
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


# Commands


def test_commands_for_an_unknown_peer_are_no_matter(bench):
    endpoint = ("192.0.2.9", 9)
    for command in (
        Transmit(7, bytes(148)),
        Wipe(7),
        GiveUp(7),
        link.RemovePeer(7),
        link.SetEndpoint(7, endpoint, "dns"),
        link.Routes([(bytes([10, 9, 0, 0]), 16, 7)], [], is_last=True),
        link.Handled(5),
        link.RenewSources(),
    ):
        bench.b.tell(command)
    bench.b.tell(InstallKeypair(7, 77, 1, b"s" * 32, b"r" * 32, True, 1.0, 1.0, endpoint))
    bench.world.run(0)

    assert bench.b.reported[-1] == link.Retired(77)
    assert bench.dropped == {}


def test_an_index_in_use_is_not_installed_twice(bench):
    keypair = bench.peer.keypairs.current
    bench.b.tell(
        InstallKeypair(1, keypair.local_index, 1, b"s" * 32, b"r" * 32, True, 1.0, 1.0, bench.source)
    )

    assert bench.peer.keypairs.current is keypair


def test_a_socket_that_an_earlier_forwarder_used_is_as_the_agent_opened_it(bench):
    used = FakeSocket(bench.b, socket.AF_INET, 51820)
    used.options[0, 10] = 2  # IP_PMTUDISC_DO
    bench.b.tell(link.SetNode(65535, False, []))  # the kernel is left to cut

    bench.b.tell(link.Sockets("wireguard", [link.SocketRow(socket.AF_INET, 51820)]), [used])

    assert used.options[0, 10] == 1  # IP_PMTUDISC_WANT


def test_sockets_without_their_descriptors_are_refused(bench):
    bench.b.tell(
        link.Sockets("wireguard", [link.SocketRow(2, 51820), link.SocketRow(10, 51820)]),
        [FakeSocket(bench.b, 2, 51820)],
    )

    assert bench.dropped == {"link": 1}
    assert len(bench.core.sender.sockets) == 2


CONTRADICTIONS = {
    "an encapsulation that there is none of": lambda b: (link.SetPeer(7, 0.0, "nvgre"), []),
    "another encapsulation for a peer": lambda b: (link.SetPeer(1, 0.0, "udp"), []),
    "a GRE key over 32 bits": lambda b: (link.SetPeer(7, 0.0, "gre", [], Ends(2**32)), []),
    "sockets of no encapsulation": lambda b: (
        link.Sockets("nvgre", [link.SocketRow(2, 1)]),
        [FakeSocket(b, 2, 1)],
    ),
    "a role that there is none of": lambda b: (
        link.Sockets("wireguard", [link.SocketRow(2, 1, 9)]),
        [FakeSocket(b, 2, 1)],
    ),
    "more rows than sockets": lambda b: (
        link.Sockets("wireguard", [link.SocketRow(2, 1)] * 2),
        [FakeSocket(b, 2, 1)],
    ),
    "more sockets than rows": lambda b: (
        link.Sockets("wireguard", [link.SocketRow(2, 1)]),
        [FakeSocket(b, 2, 1)] * 2,
    ),
    "a raw socket that did not come": lambda b: (link.SetNode(1420, True, []), []),
    "a path socket that did not come": lambda b: (link.SetNode(1420, False, [], families=[2]), []),
    "a socket that nothing is said of": lambda b: (link.SetNode(1420, False, []), [FakeSocket(b, 2, 1)]),
    "a second start": lambda b: (link.Start(bytes(32), 1420, True, True, [1.0] * 14), []),
}


@pytest.mark.parametrize("make", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_command_that_contradicts_itself_is_counted_and_changes_nothing(bench, make):
    command, sockets = make(bench.b)
    before = [udp.closes_at for udp in bench.core.sender.sockets], sorted(bench.core.peers)

    for _ in range(2):
        bench.b.commands.handle(command, sockets, bench.world.clock.now)

    assert bench.dropped == {"link": 2}
    assert ([udp.closes_at for udp in bench.core.sender.sockets], sorted(bench.core.peers)) == before
    there, back = bench.a.send(bench.b), bench.b.send(bench.a)
    bench.world.run(1)
    assert (bench.b.received, bench.a.received) == (there, back)


@pytest.mark.parametrize(("name", "largest"), [("gre", 2**32 - 1), ("vxlan", 2**24 - 1)])
def test_the_largest_identifier_of_an_encapsulation_is_taken(bench, name, largest):
    bench.b.tell(link.SetPeer(7, 0.0, name, [], Ends(largest)))

    assert bench.core.peers[7].tunnel.ends.identifier == largest
    assert bench.dropped == {}


def test_a_packet_for_a_peer_just_removed_has_nowhere_to_go(bench):
    bench.core.table.find(packets.ip_address(bench.a.inner()).packed)
    bench.b.tell(link.RemovePeer(1))
    bench.b.send(bench.a, 2)
    bench.world.run(1)

    assert bench.dropped == {"no_peer": 2}
    assert len(bench.core.staging) == 0


def test_what_is_staged_for_a_removed_peer_is_forgotten():
    world = World()
    a, b = world.pair()
    world.network.lose = lambda flight: True
    a.send(b, 100)
    world.run(1)
    a.tell(link.RemovePeer(1))

    assert len(a.core.staging) == 0


def test_wiped_keypairs_open_nothing(bench):
    datagram = bench.sealed(bench.packet())
    bench.b.tell(Wipe(1))
    for _ in range(2):
        bench.arrive(datagram)

    assert bench.dropped == {"unknown_index": 2}
    assert bench.core.by_index == {}


def test_counters_come_in_pieces_and_for_nobody():
    world = World()
    node = world.node("a")
    for number in range(1, 451):
        node.tell(link.SetPeer(number, 0.0))
    node.tell(link.AskCounters(9))
    lonely = world.node("b")
    lonely.tell(link.AskCounters(3))
    world.run(0)

    whole, rest = divmod(450, PEERS_PER_MESSAGE)
    assert [(each.serial, len(each.peers), each.is_last) for each in node.reported] == [
        *[(9, PEERS_PER_MESSAGE, False)] * whole,
        (9, rest, True),
    ]
    assert lonely.reported == [link.Counters(3, [], {}, is_last=True)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, 9])
def test_packets_of_a_source_that_was_not_looked_up_lately_are_taken(bench, version, count):
    for _ in range(2):
        sent = bench.a.send(bench.b, count, version=version)
        bench.core.table.remembered.clear()
        bench.world.run(1)

        assert bench.b.received[-count:] == sent


def test_a_peer_heard_on_a_closing_socket_of_another_family_is_still_answered(bench):
    old_v6 = bench.b.sockets[1]
    bench.b.open_sockets()
    bench.world.run(0.1)
    destination = (bench.b.addresses[1], bench.b.port, 0, 0)
    source = (bench.a.addresses[1], bench.a.port, 0, 0)
    old_v6.inbox.append(Flight(source, destination, bench.sealed(bench.packet())))
    bench.world.run(0)
    sent = bench.b.send(bench.a)
    bench.world.run(1)

    assert bench.a.received == sent
    assert bench.dropped == {}


def test_under_load_a_cookie_lets_through_the_address_that_it_was_given_to_alone(bench):
    bench.b.is_agent_busy = True
    holder, message = CookieHolder(bench.b.key.public), b"\1\0\0\0" + bytes(144)
    for port in range(UNDER_LOAD_WAITING):
        bench.arrive(holder.add_macs(message, 0.0), source=("198.51.100.1", 1 + port))
    answers = []
    bench.world.network.lose = lambda flight: bool(answers.append(flight))
    bench.arrive(holder.add_macs(message, 0.0), source=("198.51.100.9", 9))

    (reply,) = answers
    assert reply.destination == ("198.51.100.9", 9)
    holder.consume_reply(CookieReply.parse(reply.datagram), 0.0)
    answered = holder.add_macs(message, 0.0)
    for source in (("198.51.100.9", 9), ("198.51.100.8", 9), ("198.51.100.9", 8)):
        bench.arrive(answered, source=source)

    assert bench.b.drops == {"handshake_under_load": 3}


def test_callers_that_wait_are_answered_although_many_call_after_them(bench):
    called = CookieHolder(bench.b.key.public).add_macs(b"\1\0\0\0" + bytes(144), 0.0)
    callers = [(f"198.51.{number >> 8}.{number & 255}", 9) for number in range(CALLERS + 100)]
    for caller in callers:
        bench.arrive(called, source=caller)

    for caller in callers:
        bench.b.tell(Transmit(1, bytes(92), endpoint=caller))

    assert bench.peer.drops == {"no_endpoint": 100}  # those that called first


def test_a_vxlan_network_over_24_bits_is_refused(bench):
    bench.b.tell(link.SetPeer(7, 0.0, "vxlan", [], Ends(2**24)))

    assert 7 not in bench.b.core.peers
    assert bench.b.core.drops["link"] == 1


def test_sockets_that_are_told_again_stay_in_use_and_the_others_are_closed():
    world = World()
    a, b = world.pair()
    world.run(1)
    first, second = a.core.sender.sockets[:2]

    def use(udp):
        a.commands.handle(
            link.Sockets("wireguard", [link.SocketRow(udp.family, a.port)]), [udp.raw], world.clock.now
        )

    use(first)
    assert [udp for udp in a.core.sender.sockets if udp.closes_at == math.inf] == [first]
    use(second)
    use(first)
    world.run(link.REPLACED_TIME + 1)

    assert a.core.sender.sockets == [first]
    sent = a.send(b)
    world.run(1)
    assert b.received == sent


def test_who_could_not_answer_for_its_keys_were_too_old_answers_under_new_ones():
    """A keepalive that is owed when there are no keys left is owed no longer: else none would ever be sent again."""
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(175)
    b.is_agent_busy = a.is_agent_busy = True
    a.send(b)
    world.run(14)  # the keys have expired, and the answer was due
    assert b.peer().keypairs.current.reject_at < world.clock.now
    b.reports.clear()  # so that the other end begins
    b.is_agent_busy = a.is_agent_busy = False
    since = world.clock.now
    a.send(b)
    world.run(1)
    assert [who for _, who, kind, _ in world.network.sent if kind == "initiation"][-1] == "a"
    a.send(b)
    world.run(11)

    assert len(world.sent("keepalive", "b", since)) == 1


# Timers


def silent_from(world, node):
    """Let nothing of *node* arrive but its handshake messages."""
    world.network.lose = lambda flight: (
        flight.source[0] in node.addresses and flight.kind in {"data", "keepalive"}
    )


def test_a_peer_that_shook_hands_and_then_says_nothing_is_called_again():
    world = World()
    a, b = world.pair()
    silent_from(world, b)
    a.send(b)
    world.run(1)
    assert len(world.sent("initiation")) == 1

    world.run(15)

    assert len(world.sent("initiation", "a")) == 2


def test_silence_counts_from_the_first_packet_that_was_not_answered(bench):
    world, a, b, begin = bench.world, bench.a, bench.b, bench.world.clock.now
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(7)
    silent_from(world, b)
    a.send(b)

    world.run(14.9)
    assert world.sent("initiation", since=begin) == []
    world.run(1.2)
    assert len(world.sent("initiation", "a", begin)) == 1


def test_a_keepalive_counts_from_the_first_packet_that_was_not_answered(bench):
    world, a, b, begin = bench.world, bench.a, bench.b, bench.world.clock.now
    world.run(20)
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(4)
    begin = world.clock.now
    a.send(b)

    world.run(9.9)
    assert world.sent("keepalive", "b", begin) == []
    world.run(0.2)
    assert len(world.sent("keepalive", "b", begin)) == 1


def test_a_persistent_keepalive_goes_when_nothing_else_went_either_way():
    world = World()
    a, b = world.pair(keepalive=5.0)
    world.run(1)
    begin = world.clock.now
    for number in range(20):
        (a if number % 2 else b).send(b if number % 2 else a)
        world.run(1)

    assert world.sent("keepalive", since=begin) == []
    world.run(6)
    assert world.sent("keepalive", since=begin)


def test_the_agent_is_not_told_of_an_endpoint_that_it_set_itself(bench):
    bench.b.reported.clear()
    for port in (1, 2, bench.a.port):
        bench.b.tell(link.SetEndpoint(1, (bench.a.addresses[0], port), "dns"))
    bench.world.run(10)

    assert [each for each in bench.b.reported if isinstance(each, link.Moved)] == []


def test_counters_of_a_tun_tell_of_no_ethernet_addresses(bench):
    bench.b.tell(link.AskCounters(1))
    bench.world.run(0)

    assert [row.learnt_macs for row in bench.b.reported[-1].peers] == [0]


def test_each_packet_that_found_no_room_to_wait_for_the_session_is_counted():
    world = World()
    a, b = world.pair()

    a.send(b, 600, size=1300)
    world.run(1)

    dropped = a.peer().drops["staging_full"]
    assert dropped > 1
    assert len(b.received) == 600 - dropped


def test_packets_of_one_flow_with_a_spoofed_source_are_owed_an_answer_from_when_they_came(bench):
    """The peer is there and has been heard, whatever it sends."""
    whole = packets.tcp(bytes(4000), source="10.244.9.9", destination=bench.b.inner())
    bench.world.run(30)

    bench.arrive(*map(bench.sealed, packets.kernel_segments(*packets.as_super_packet(whole, 992))))

    assert bench.peer.drops["source"] == 5
    assert bench.peer.contact.owed_since == bench.world.clock.now


def test_a_session_is_asked_for_once_while_the_agent_looks_for_it(bench):
    world = World()
    a, b = world.pair()
    world.network.lose = lambda _: True

    for _ in range(5):
        a.send(b)
        world.run(0.01)

    assert a.reported.count(link.Wanted(1)) == 1


@pytest.mark.parametrize("missing", [8, 16, 24, 32, 40])
def test_equal_packets_that_claim_more_than_came_are_each_refused(bench, missing):
    bench.world.run(1)
    cut = [bench.packet(number, size=200)[:-missing] for number in range(8)]

    bench.arrive(*map(bench.sealed, cut))

    assert (bench.b.received, bench.dropped) == ([], {"inner_length": 8})
