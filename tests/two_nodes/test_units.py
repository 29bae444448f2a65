"""What two nodes do together that carry super-packets as bulk units."""

from __future__ import annotations

import errno
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.bulk.capability import Bulk
from overlay.forwarding.bulk.size import SMALLEST, WHOLE
from overlay.forwarding.pings import PONGS_AT_ONCE
from overlay.link.messages import PINGS_WAITING, PingPeer, Ponged, Wanted
from overlay.session.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM, AES_BLOCKS_PER_KEY, CHACHA20_POLY1305
from tests import packets
from tests.hypothesis_profiles import examples, seeds
from tests.network import Nat
from tests.packets import ACK, CWR, ECE, FIN, PSH
from tests.sim import World

pytestmark = pytest.mark.slow

BOTH = [AES_256_GCM, CHACHA20_POLY1305]
RTT = 0.02
# Bytes on the wire: datagrams of these sizes are control messages where a story sends nothing as small.
HELLO = 32 + len(control.build(control.Hello(tuple(BOTH), 65_555, 255, 1420, is_answer=True)))


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def world(request):
    world = World(has_gro=request.param, ciphers=BOTH)
    yield world
    print(world.trace)  # noqa: T201  pytest shows it for a test that failed


@pytest.fixture
def pair(world):
    return world.pair()


class Stream:
    """A TCP stream of super-packets from one node to another."""

    def __init__(self, world, sender, receiver, **how):
        self.world, self.sender, self.receiver, self.how = world, sender, receiver, how
        self.sent, self.number = [], 0

    def go_on(self, seconds, every=0.01, size=20_000):
        """Send a super-packet each *every* seconds; return the segments sent."""
        sent = []
        for _ in range(round(seconds / every)):
            sent += self.sender.send_super(self.receiver, size, sequence=self.number, **self.how)
            self.number += size
            self.world.run(every)
        self.sent += sent
        return sent


def connected(world, a, b):
    """Let both ends say hello and send until units are whole; forget what was sent."""
    for _ in range(5):
        a.send_super(b, 3000)
        world.run(0.5)
        b.send_super(a, 3000)
        world.run(0.5)
    forget(a, b)
    assert a.peer().keypairs.current.bulk.key
    assert b.peer().keypairs.current.bulk.key


def forget(*nodes):
    for node in nodes:
        node.received.clear()
        node.world.network.sent.clear()


def kinds(world, by=None):
    return Counter(kind for _, who, kind, _ in world.network.sent if by in {None, who})


def are_units_in_use(node, number=1):
    """Return whether the next super-packet would go as a unit."""
    keypair = node.peer(number).keypairs.current
    return keypair.bulk.key is not None and keypair.bulk.size.allowed(node.world.clock.now) > 0


def missing(sent, received):
    return Counter(sent) - Counter(received)


def extra(sent, received):
    return Counter(received) - Counter(sent)


# The first units


def test_a_super_packet_arrives_as_the_kernel_would_cut_it(world, pair):
    a, b = pair
    connected(world, a, b)

    sent = a.send_super(b, 60_000)
    world.run(1)

    assert b.received == sent
    assert kinds(world, "a") == {"fragment": 42}
    assert b.peer().traffic.rx_units == a.peer().traffic.tx_units >= 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", [0, 1], ids=["over IPv4", "over IPv6"])
@pytest.mark.parametrize("ciphers", [BOTH, BOTH[1:]], ids=["AES", "ChaCha20"])
def test_both_families_go_inside_both(version, outer, ciphers):
    world = World(ciphers=ciphers)
    a, b = world.node("a"), world.node("b")
    a.know(b, endpoint=(b.addresses[0], b.port) if outer == 0 else (b.addresses[1], b.port, 0, 0))
    b.know(a, endpoint=None)
    there, back = Stream(world, a, b, version=version), Stream(world, b, a, version=version)
    for _ in range(3):
        there.go_on(0.1)
        back.go_on(0.1)
    world.run(1)

    assert (a.received, b.received) == (back.sent, there.sent)
    assert a.peer().traffic.rx_units > 20
    assert b.peer().traffic.rx_units > 20


def test_the_first_super_packets_go_as_messages_until_both_have_said_hello(world, pair):
    a, b = pair
    stream = Stream(world, a, b)

    stream.go_on(0.2, every=0.004)
    world.run(1)

    assert b.received == stream.sent
    first = min(at for at, _, kind, _ in world.network.sent if kind == "fragment")
    assert first - world.network.sent[0][0] == pytest.approx(2 * RTT, abs=0.005)


def test_a_stream_the_other_way_needs_no_more_hellos(world, pair):
    a, b = pair
    Stream(world, a, b).go_on(0.2)
    world.run(1)
    forget(a, b)
    back = Stream(world, b, a)

    back.go_on(0.1)
    world.run(1)

    assert a.received == back.sent
    assert set(kinds(world, "b")) == {"fragment"}


@pytest.mark.parametrize(
    ("ours", "theirs", "used"),
    [(BOTH, BOTH[1:], True), (BOTH[1:], BOTH, True), (BOTH, [], False), ([], BOTH, False)],
)
def test_ends_with_other_ciphers_find_one_or_go_without(world, ours, theirs, used):
    world.ciphers = ours
    a = world.node("a")
    world.ciphers = theirs
    b = world.node("b")
    a.know(b)
    b.know(a)
    there, back = Stream(world, a, b), Stream(world, b, a)

    there.go_on(0.2)
    back.go_on(0.2)
    world.run(1)

    assert (a.received, b.received) == (back.sent, there.sent)
    assert ("fragment" in kinds(world)) == used


def test_an_end_with_a_smaller_mtu_gets_no_larger_datagrams(world):
    a, b = world.node("a"), world.node("b")
    a.mtu, b.mtu = 8920, 1420
    a.restart()
    a.know(b)
    b.know(a)
    small, large = Stream(world, a, b, segment=1380), Stream(world, a, b, segment=8880)

    small.go_on(0.3)
    forget()
    start = world.clock.now
    small.go_on(0.3)
    sizes = [size for at, _, kind, size in world.network.sent if kind == "fragment" and at >= start]
    large.go_on(0.1, size=60_000)
    world.run(1)

    assert max(sizes) == 1420 + 32
    assert sorted(b.received) == sorted(small.sent + large.sent)
    assert a.drops == b.drops == {}


def test_jumbo_ends_use_jumbo_datagrams(world):
    a, b = world.node("a"), world.node("b")
    for node in (a, b):
        node.mtu = 8920
        node.restart()
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b, segment=8880)

    stream.go_on(0.3, size=60_000)
    world.run(1)

    assert b.received == stream.sent
    assert max(size for _, _, kind, size in world.network.sent if kind == "fragment") == 8952


@pytest.mark.parametrize(
    ("size", "segment"), [(65_000, 256), (65_000, 1368), (500, 256), (1369, 1368), (20_001, 1368)]
)
def test_super_packets_of_any_shape_arrive(world, pair, size, segment):
    a, b = pair
    connected(world, a, b)

    sent = a.send_super(b, size, segment)
    world.run(1)

    assert b.received == sent
    assert "data" not in kinds(world, "a")


def test_segments_smaller_than_units_take_go_as_messages(world, pair):
    a, b = pair
    connected(world, a, b)

    sent = a.send_super(b, 5000, 255)
    world.run(1)

    assert b.received == sent
    assert "fragment" not in kinds(world)


def test_single_packets_travel_as_before(world, pair):
    a, b = pair
    connected(world, a, b)

    sent = a.send(b, 40, size=1300)
    world.run(0.1)

    assert b.received == sent
    assert kinds(world) == {"data": 40}


@pytest.mark.parametrize("limit", [WHOLE, 8])
def test_single_packets_stay_before_and_behind_the_units_they_were_read_with(world, pair, limit):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = limit

    sent = a.send(b, 3) + a.send_super(b, 20_000) + a.send(b, 2) + a.send_super(b, 9000) + a.send(b)
    world.run(0.1)

    assert b.received == sent


@pytest.mark.parametrize("limits", [{"most": most} for most in (0, 20, 60, 1500, 4000)] + [{"fragments": 0}])
def test_a_peer_that_takes_small_units_only_gets_messages(world, pair, limits):
    a, b = pair
    connected(world, a, b)
    for name, value in limits.items():
        setattr(a.peer().keypairs.current.bulk, name, value)

    sent = a.send_super(b, 20_000)
    world.run(0.1)

    assert b.received == sent
    assert "fragment" not in kinds(world)


def test_a_peer_s_limit_is_kept_by_every_unit(world, pair):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.fragments = 10
    counts = set()
    world.network.lose = lambda flight: flight.kind == "fragment" and counts.add(flight.datagram[2])

    sent = a.send_super(b, 60_000)
    world.run(0.1)

    assert b.received == sent
    assert max(counts) <= 10


@pytest.mark.parametrize("limit", [WHOLE, 8])
@pytest.mark.parametrize("ecn", range(4))
@pytest.mark.parametrize("version", [4, 6])
def test_units_carry_the_ecn_field_of_their_packets_outside(world, pair, limit, ecn, version):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = limit
    seen = set()
    world.network.lose = lambda flight: flight.kind == "fragment" and seen.add(flight.tos)

    sent = a.send_super(b, 20_000, version=version, tos=ecn)
    world.run(0.1)

    assert b.received == sent
    assert seen == {ecn}


def send_udp(sender, receiver, size, segment, version=4):
    addresses = {"source": sender.inner(version), "destination": receiver.inner(version)}
    body = random.Random(size).randbytes(size)
    packet, virtio = packets.as_super_packet(packets.udp(body, version=version, **addresses), segment)
    sender.tun.outgoing.append(virtio + packet)
    return packets.kernel_segments(packet, virtio)


@pytest.mark.parametrize("joins_udp", [True, False], ids=["USO", "no USO"])
@pytest.mark.parametrize("version", [4, 6])
def test_udp_super_packets_go_as_units_too(world, joins_udp, version):
    a, b = world.node("a"), world.node("b")
    b.joins_udp = joins_udp
    b.restart()
    a.know(b)
    b.know(a)
    connected(world, a, b)

    sent = [each for size in (2400, 30_000, 45_001) for each in send_udp(a, b, size, 1200, version)]
    world.run(1)

    assert b.received == sent
    assert set(kinds(world, "a")) == {"fragment"}


def test_super_packets_the_kernel_does_not_vouch_for_are_no_units(world, pair):
    a, b = pair
    connected(world, a, b)
    (segments,) = [a.send_super(b, 5000)]
    whole = bytearray(a.tun.outgoing.pop())
    whole[0] = 0
    a.tun.outgoing.append(bytes(whole))

    world.run(0.1)

    assert "fragment" not in kinds(world)
    assert b.received in ([], segments)


@pytest.mark.parametrize(
    ("at", "value"), [(6, 24), (6, 16), (1, 4), (1, 5)], ids=["behind", "before", "IPv6", "UDP"]
)
def test_super_packets_whose_metadata_is_not_what_their_headers_say_are_no_units(world, pair, at, value):
    a, b = pair
    connected(world, a, b)
    a.send_super(b, 5000)
    whole = bytearray(a.tun.outgoing.pop())
    whole[at] = value
    a.tun.outgoing.append(bytes(whole))

    world.run(0.1)

    assert "fragment" not in kinds(world)


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize("kind", [0, 60])
def test_super_packets_with_extension_headers_go_as_messages(world, pair, make, kind):
    a, b = pair
    connected(world, a, b)
    whole = make(bytes(range(256)) * 40, version=6, source=a.inner(6), destination=b.inner(6))
    packet, virtio = packets.as_super_packet(packets.with_options(whole, kind=kind), 1300)
    a.tun.outgoing.append(virtio + packet)

    world.run(1)

    assert b.received == packets.kernel_segments(packet, virtio)
    assert "fragment" not in kinds(world)


def test_units_are_sent_one_by_one_where_the_kernel_cannot_cut(world):
    a, b = world.node("a"), world.node("b")
    a.has_segments = False
    a.restart()
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)

    stream.go_on(0.3)
    world.run(1)

    assert b.received == stream.sent
    assert b.peer().traffic.rx_units > 10


# Plain peers


def test_a_plain_peer_gets_three_hellos_for_a_keypair_and_no_more(world):
    a = world.node("a")
    world.ciphers = []
    b = world.node("b")
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)

    stream.go_on(30, every=0.1, size=3000)

    assert b.received == stream.sent
    assert b.drops == {"inner_version": 3}
    assert "fragment" not in kinds(world)


def test_a_new_keypair_gives_a_plain_peer_none_and_a_later_one_a_single_one(world):
    a = world.node("a")
    world.ciphers = []
    b = world.node("b")
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)

    stream.go_on(140, every=0.5, size=3000)
    assert b.drops == {"inner_version": 3}
    stream.go_on(600, every=2.0, size=3000)

    assert b.received == stream.sent
    assert b.drops == {"inner_version": 4}


def test_a_plain_peer_that_becomes_one_of_ours_is_found_when_its_program_begins_anew(world):
    a = world.node("a")
    world.ciphers, ciphers = [], world.ciphers
    b = world.node("b")
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)
    stream.go_on(1800, every=10.0, size=3000)
    assert "fragment" not in kinds(world)

    b.ciphers = list(ciphers)
    b.restart()
    b.want(1)
    for _ in range(4):
        stream.go_on(200, every=2.0, size=3000)

    assert "fragment" in kinds(world)


def test_a_plain_peer_that_becomes_one_of_ours_and_sends_itself_is_found_at_once(world):
    a = world.node("a")
    world.ciphers, ciphers = [], world.ciphers
    b = world.node("b")
    a.know(b)
    b.know(a)
    Stream(world, a, b).go_on(1800, every=10.0, size=3000)

    b.ciphers = list(ciphers)
    b.restart()
    Stream(world, b, a).go_on(5, every=0.5, size=3000)
    Stream(world, a, b).go_on(5, every=0.5, size=3000)

    assert "fragment" in kinds(world)


def test_who_only_sees_single_packets_sees_no_hello(world):
    plain = World(has_gro=world.has_gro)
    traces = []
    for each in (world, plain):
        a, b = each.pair()
        for _ in range(400):
            a.send(b)
            b.send(a)
            each.run(1)
        traces.append([(at, who, kind, size) for at, who, kind, size in each.network.sent])
        assert a.drops == b.drops == {}

    assert traces[0] == traces[1]
    assert world.network.digest == plain.network.digest


# Hellos that are lost


def control_of(node, flight):
    """Return whether *flight* is a hello of *node*."""
    return flight.kind == "data" and flight.source[0] in node.addresses and len(flight.datagram) == HELLO


@pytest.mark.parametrize("side", ["caller", "answerer"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_hello_lost_either_way_is_said_again(world, pair, side, count):
    a, b = pair
    lost = []
    sender = a if side == "caller" else b
    world.network.lose = lambda flight: (
        control_of(sender, flight) and len(lost) < count and lost.append(flight) is None
    )
    stream = Stream(world, a, b)

    stream.go_on(0.5)
    assert not are_units_in_use(a)
    stream.go_on([1, 5][count - 1])

    assert len(lost) == count
    assert are_units_in_use(a)
    assert b.received == stream.sent


def test_with_every_hello_lost_the_peer_is_plain(world, pair):
    a, b = pair
    lost = []
    world.network.lose = lambda flight: control_of(a, flight) and lost.append(flight) is None
    stream = Stream(world, a, b)

    stream.go_on(20, every=0.1)

    assert len(lost) == 3
    assert b.received == stream.sent
    assert "fragment" not in kinds(world)


@pytest.mark.parametrize("side", ["caller", "answerer"])
def test_a_hello_for_which_the_socket_is_full_is_not_lost(world, pair, side):
    """It was, and counted as said: a transfer of less than a second went without a single unit."""
    a, b = pair
    a.send(b)
    world.run(1)
    a.received.clear()
    b.received.clear()
    (a if side == "caller" else b).sockets[0].errors.append(errno.EAGAIN)
    stream = Stream(world, a, b)

    stream.go_on(0.2)
    world.run(1)

    assert b.received == stream.sent
    assert a.peer().traffic.tx_units > 10
    assert not any(node.sockets[0].errors for node in (a, b))


def test_a_report_for_which_the_socket_is_full_is_not_lost(world, pair):
    a, b = pair
    connected(world, a, b)
    size = a.peer().keypairs.current.bulk.size
    b.sockets[0].errors.append(errno.EAGAIN)

    a.send_super(b, 20_000)
    world.run(0.1)

    assert not b.sockets[0].errors
    assert size.waits_since == math.inf


def test_a_side_that_has_heard_a_hello_sends_units_although_its_own_is_not_seen(world, pair):
    a, b = pair
    world.network.lose = lambda flight: control_of(b, flight)
    there, back = Stream(world, a, b), Stream(world, b, a)
    there.go_on(0.05)
    forget(a, b)
    back.go_on(0.2)
    world.run(0.1)

    assert a.received == back.sent
    assert a.peer().traffic.rx_units > 10
    assert not are_units_in_use(a)


def test_a_new_keypair_carries_no_unit_before_its_own_hello_was_heard_and_counts_from_0(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(5)
    a.want(1)
    world.run(1)
    forget(a, b)
    for node in (a, b):
        assert node.peer().keypairs.current.bulk.key is None

    sent = a.send_super(b, 20_000)
    world.run(RTT / 4)
    assert "fragment" not in kinds(world)
    world.run(1)
    first = []
    world.network.lose = lambda flight: first.append(flight.datagram) is not None
    sent += a.send_super(b, 20_000, sequence=20_000)
    world.run(1)

    assert b.received == sent
    assert {datagram[8:16] for datagram in first if datagram[0] == 5} == {bytes(8)}


def test_a_hello_holds_for_no_other_peer(world):
    a, b, c = world.node("a"), world.node("b"), world.node("c")
    for other in (b, c):
        a.know(other)
        other.know(a)
    connected(world, a, b)
    world.network.lose = lambda flight: control_of(c, flight)

    sent = a.send_super(c, 20_000)
    world.run(1)
    sent += a.send_super(c, 20_000, sequence=20_000)
    world.run(1)

    assert c.received == sent
    assert a.core.peers[2].traffic.tx_units == 0


# Control messages and the timers


def test_reports_under_old_keys_ask_for_no_new_ones(world, pair):
    a, b = pair
    connected(world, b, a)  # b is the initiator, who renews keys
    assert b.peer().keypairs.current.is_initiator
    world.run(130)
    forget(a, b)
    before = b.peer().traffic.rx_units

    for _ in range(8):
        a.send_super(b, 20_000)
        world.run(1)

    probes = sum((who, kind, size) == ("a", "data", a.mtu + 32) for _, who, kind, size in world.network.sent)
    assert kinds(world, "b") == {"data": 8 + probes}
    assert b.peer().traffic.rx_units - before == 8


def test_control_messages_stop_with_the_data(world, pair):
    a, b = pair
    Stream(world, a, b).go_on(3)
    world.run(11)
    assert kinds(world, "b")["keepalive"] == 1
    world.network.sent.clear()

    world.run(600)

    assert world.network.sent == []


def test_units_alone_are_owed_an_answer_as_data_is(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(30)
    world.network.sent.clear()
    start = world.clock.now
    a.send_super(b, 20_000)

    world.run(30)

    assert world.sent("keepalive", "b") == [pytest.approx(start + RTT / 2 + 10)]


def test_a_stream_of_units_renews_its_keypair_after_120_seconds(world, pair):
    a, b = pair
    stream = Stream(world, a, b)

    stream.go_on(130, every=0.5, size=5000)

    assert len(world.sent("initiation")) == 2
    assert missing(stream.sent, b.received) == {}
    assert are_units_in_use(a)


def test_units_without_an_answer_make_a_new_handshake_as_data_does(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(5)
    start = world.clock.now
    a.send_super(b, 20_000)
    world.run(RTT + 0.05)
    world.network.lose = lambda flight: flight.source[0] in b.addresses
    a.peer().keypairs.current.bulk.size.is_plain = True
    a.send_super(b, 20_000)

    world.run(17)

    assert world.sent("initiation", "a", since=start) == [pytest.approx(start + 15.2, abs=0.25)]


@pytest.mark.parametrize("counter", ["messages", "units"])
def test_messages_and_units_count_for_the_limit_after_which_keys_are_renewed(world, pair, counter):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    if counter == "messages":
        keypair.counter = REKEY_AFTER_MESSAGES
    else:
        keypair.bulk.key.counter = REKEY_AFTER_MESSAGES

    world.run(5)
    sent = a.send_super(b, 20_000)
    world.run(1)

    assert b.received == sent
    assert len(world.sent("initiation", "a")) == 1
    assert a.peer().keypairs.current is not keypair


def test_a_key_that_has_sealed_all_it_may_is_replaced_and_messages_go_meanwhile(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    keypair.bulk.key.blocks = AES_BLOCKS_PER_KEY
    world.run(5)
    stream = Stream(world, a, b)

    stream.go_on(0.3)
    world.run(1)

    assert b.received == stream.sent
    assert a.peer().keypairs.current is not keypair
    assert are_units_in_use(a)


@pytest.mark.parametrize("spent", [{"blocks": AES_BLOCKS_PER_KEY}, {"counter": REJECT_AFTER_MESSAGES - 3}])
def test_a_key_that_has_sealed_all_it_may_seals_no_more(world, pair, spent):
    a, b = pair
    connected(world, a, b)
    world.run(5)
    forget(a, b)
    key = a.peer().keypairs.current.bulk.key
    for name, value in spent.items():
        setattr(key, name, value)
    world.network.lose = lambda flight: flight.kind == "initiation"

    sent = a.send_super(b, 20_000)
    world.run(1)

    assert b.received == sent
    assert kinds(world, "a") == {"initiation": 1, "data": len(sent)}


def test_counters_of_units_end_before_those_that_are_refused(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    keypair.bulk.key.counter = REJECT_AFTER_MESSAGES - 3
    world.run(5)
    stream = Stream(world, a, b)

    stream.go_on(0.3)
    world.run(1)

    assert b.received == stream.sent
    assert a.peer().keypairs.current is not keypair


# Rekeying, crossing, roaming


@pytest.mark.parametrize("both_ways", [False, True])
def test_rekeying_in_mid_transfer_loses_nothing(world, pair, both_ways):
    a, b = pair
    there, back = Stream(world, a, b), Stream(world, b, a)
    for _ in range(300):
        there.go_on(0.5, every=0.5, size=5000)
        if both_ways:
            back.go_on(0.01, size=5000)
    world.run(1)

    assert missing(there.sent, b.received) == missing(back.sent, a.received) == {}
    assert extra(there.sent, b.received) == extra(back.sent, a.received) == {}
    assert len(world.sent("initiation")) >= 2
    assert are_units_in_use(a)


def test_a_transfer_under_fire_of_handshakes_loses_nothing(world, pair):
    a, b = pair
    stream = Stream(world, a, b)
    for number in range(20):
        (a if number % 2 else b).want(1)
        stream.go_on(1, every=0.011, size=5000)
    world.run(1)

    assert missing(stream.sent, b.received) == extra(stream.sent, b.received) == {}
    assert b.peer().traffic.rx_units > 1000


@pytest.mark.parametrize("seed", seeds(6))
def test_after_handshakes_that_crossed_units_are_used_both_ways(seed):
    world = World(seed, ciphers=BOTH)
    a, b = world.pair()
    there, back = Stream(world, a, b), Stream(world, b, a)
    to_b, to_a = a.send_super(b, 20_000), b.send_super(a, 20_000)
    for _ in range(20):
        there.go_on(0.01)
        back.go_on(0.01)
    world.run(0.1)

    assert (a.received, b.received) == (to_a + back.sent, to_b + there.sent)
    assert are_units_in_use(a)
    assert are_units_in_use(b)


@pytest.mark.parametrize("seed", seeds(4))
def test_units_go_under_whichever_keypair_a_peer_uses_after_handshakes_that_crossed(seed):
    world = World(seed, ciphers=BOTH)
    a, b = world.pair()
    a.want(1)
    b.want(1)
    world.run(1)
    keeps, uses = (a, b) if a.peer().keypairs.next else (b, a)
    lost = keeps.peer().keypairs.next
    keypairs = uses.peer().keypairs
    keypairs.current, keypairs.previous = keypairs.previous, keypairs.current
    assert keypairs.current.remote_index == lost.local_index
    stream = Stream(world, uses, keeps)

    stream.go_on(2)
    world.run(1)

    assert keeps.received == stream.sent
    assert keeps.peer().keypairs.next is lost
    assert are_units_in_use(uses)
    assert keypairs.current.bulk.size.limit == WHOLE


def test_a_responder_sends_no_unit_before_it_has_received_under_the_keypair(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(125)
    forget(a, b)
    held = []
    world.network.lose = lambda flight: (
        flight.source[0] in a.addresses and flight.kind == "keepalive" and not held.append(flight)
    )
    a.want(1)
    world.run(1)
    assert held
    index = b.peer().keypairs.next.local_index

    b.send_super(a, 20_000)
    world.run(1)

    assert b.peer().keypairs.next.local_index == index
    assert b.peer().keypairs.next.bulk.key is None
    assert b.peer().keypairs.next.counter == 0


def test_a_transfer_follows_a_sender_that_moves(world, pair):
    a, b = pair
    connected(world, a, b)
    stream = Stream(world, a, b)
    for number in range(10):
        a.addresses = [f"198.51.100.{number}"]
        stream.go_on(0.2)
    world.run(1)

    assert b.received == stream.sent
    assert b.peer().endpoint == ("198.51.100.9", a.port)


def test_a_transfer_follows_a_nat_that_forgets(world):
    a, b = world.node("a"), world.node("b")
    a.know(b)
    b.know(a, endpoint=None)
    world.network.nats["192.0.2.1"] = Nat("203.0.113.7", 5)
    stream = Stream(world, a, b)
    for _ in range(3):
        stream.go_on(0.5)
        world.run(20)

    assert b.received == stream.sent


# A peer that begins anew


def test_a_restart_of_the_sender_costs_no_more_than_what_it_held(world, pair):
    a, b = pair
    connected(world, a, b)
    Stream(world, a, b).go_on(0.5)
    a.restart()
    forget(a, b)
    stream = Stream(world, a, b)

    stream.go_on(1)
    world.run(1)

    assert b.received == stream.sent
    assert are_units_in_use(a)


def test_a_restart_of_the_receiver_that_calls_is_over_at_once(world, pair):
    a, b = pair
    connected(world, a, b)
    stream = Stream(world, a, b)
    stream.go_on(0.5)
    b.restart()
    b.want(1)
    stream.go_on(0.1)
    forget(a, b)

    sent = stream.go_on(1)
    world.run(1)

    assert missing(sent, b.received) == {}
    assert are_units_in_use(a)


def test_a_restart_of_a_receiver_that_does_not_call_is_over_within_2_seconds(world, pair):
    a, b = pair
    connected(world, a, b)
    stream = Stream(world, a, b)
    world.run(5)
    stream.go_on(0.5)
    b.restart()
    stream.go_on(1)
    forget(a, b)

    sent = stream.go_on(1)
    world.run(1)

    assert missing(sent, b.received) == {}
    assert are_units_in_use(a)


def test_a_peer_that_becomes_plain_and_back_loses_less_than_2_seconds(world, pair):
    a, b = pair
    stream = Stream(world, a, b)
    for ciphers in ([], BOTH):
        stream.go_on(6, every=0.05)
        b.ciphers = ciphers
        b.restart()
        if ciphers:
            b.want(1)  # as our agent does when it begins
        stream.go_on(2, every=0.05)
        forget(a, b)

        sent = stream.go_on(1)
        world.run(1)

        assert missing(sent, b.received) == {}
        assert ("fragment" in kinds(world)) == bool(ciphers)


def test_a_peer_that_is_gone_is_called_although_nothing_more_is_sent(world, pair):
    a, b = pair
    Stream(world, a, b).go_on(0.3)
    world.run(5)
    b.restart()
    start = world.clock.now
    a.send_super(b, 20_000)

    world.run(1)

    assert world.sent("initiation", "a", since=start) == [pytest.approx(start + 0.4)]


def test_a_peer_that_is_heard_is_not_called_although_its_reports_are_missing(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: flight.kind == "fragment"
    stream = Stream(world, a, b)
    for _ in range(100):
        stream.go_on(0.05, every=0.05)
        b.send(a)

    assert len(world.sent("initiation")) == 0


# A path that does not carry units


def test_a_box_that_drops_the_new_type_costs_half_a_second_and_then_a_unit_now_and_then(world, pair):
    a, b = pair
    world.network.lose = lambda flight: flight.kind == "fragment"
    stream = Stream(world, a, b)
    stream.go_on(0.6)
    late = stream.go_on(20, every=0.1, size=9000)
    world.run(1)

    lost = missing(late, b.received)
    assert sum(lost.values()) <= 4 * SMALLEST  # trials after 1, 2, 4 and 8 seconds
    assert len(world.sent("initiation")) == 1
    assert extra(stream.sent, b.received) == {}


def test_a_path_with_much_loss_gets_messages_and_a_clean_one_units_again(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.loss = 0.05
    stream = Stream(world, a, b)
    stream.go_on(5, every=0.05)
    assert not are_units_in_use(a)

    world.network.loss = 0.0
    stream.go_on(40, every=0.1, size=9000)

    assert a.peer().keypairs.current.bulk.size.limit == WHOLE
    assert extra(stream.sent, b.received) == {}


def test_smaller_units_are_the_segments_of_the_whole(world, pair):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = 8

    sent = [
        each
        for number, flags in enumerate([ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | CWR | ECE | PSH])
        for each in a.send_super(b, 60_000, sequence=number * 60_000, flags=flags, identifier=65_530)
    ]
    world.run(0.1)

    assert b.received == sent
    assert a.peer().traffic.tx_units >= 5 * 6


# The socket is full


@pytest.mark.parametrize("limit", [64, 16, 4])
@pytest.mark.parametrize("sends", range(1, 6))
def test_a_socket_that_fills_in_the_middle_of_units_keeps_the_right_bytes(world, pair, limit, sends):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = limit
    full = FullAfter(a.sockets[0], sends)
    sent = [
        each for number in range(5) for each in a.send_super(b, 64_000 + number, sequence=number * 70_000)
    ] + a.send(b, 5)
    world.run(0.05)
    full.release()

    world.run(0.1)

    assert b.received == sent


class FullAfter:
    """Makes a socket full after so many sends, until it is released."""

    def __init__(self, raw, sends):
        self.raw = raw
        raw.errors = self
        self.left, self.is_released = sends, False

    def __bool__(self):
        self.left -= 1
        return self.left < 0 and not self.is_released

    def popleft(self):
        return errno.EAGAIN

    def release(self):
        self.is_released = True


def test_a_trial_that_fills_the_socket_keeps_the_right_bytes(world, pair):
    a, b = pair
    connected(world, a, b)
    size = a.peer().keypairs.current.bulk.size
    size.is_plain = True
    full = FullAfter(a.sockets[0], 1)
    sent = a.send_super(b, 64_000)
    world.run(0.05)
    full.release()

    world.run(0.1)

    assert b.received == sent
    assert not size.is_plain


# Peers that lie


class Liar:
    """Units of a keypair, but for what is reported of them."""

    def __init__(self, bulk, lie):
        self._bulk, self.report = bulk, lambda _: lie

    def __getattr__(self, name):
        return getattr(self._bulk, name)


@pytest.mark.parametrize("fields", [(2**63, 2**63), (0, 0), (5, 500), (2**64 - 1, 0)])
def test_a_peer_whose_reports_lie_hurts_itself_alone(world, fields):
    a, b, c = world.node("a"), world.node("b"), world.node("c")
    for other in (b, c):
        a.know(other)
        other.know(a)
        a.send_super(other, 3000)
        world.run(1)
    forget(a, b, c)
    lie = control.build(control.Report(*fields, 0, 0))
    bulk = b.peer().keypairs.current.bulk
    b.peer().keypairs.current.bulk = Liar(bulk, lie)
    to_b, to_c = Stream(world, a, b), Stream(world, a, c)
    for _ in range(20):
        to_b.go_on(0.05, every=0.05)
        to_c.go_on(0.05, every=0.05)
    world.run(1)

    assert b.received == to_b.sent
    assert c.received == to_c.sent
    assert a.core.peers[2].keypairs.current.bulk.size.limit == WHOLE
    assert a.drops == {}


# Wiping


def test_unit_keys_go_with_their_keypair(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send_super(b, 20_000)

    world.run(545)

    assert a.core.by_index == b.core.by_index == {}
    assert a.peer().keypairs.current is a.peer().contact.reporting is None


# Any packets in any weather, beside a twin that sends packet by packet


def any_packet(chance, source, destination, number):
    """Return (virtio header, packet) of something that a host may send."""
    version = chance.choice([4, 4, 6])
    addresses = {"source": source.inner(version), "destination": destination.inner(version)}
    if version == 4:
        addresses["identifier"] = chance.randrange(1 << 16)
    kind = chance.randrange(10)
    tos = chance.choice([0, 0, 1, 2, 3])
    size = chance.choice([0, 1, 99, 1300, chance.randrange(1320)])
    mark = number.to_bytes(4, "big")
    if kind == 0:
        return packets.PLAIN, packets.udp(mark + bytes(size), version=version, tos=tos, **addresses)
    if kind == 1:
        packet = packets.tcp(mark + bytes(size), version=version, tos=tos, sequence=number, **addresses)
        return packets.PLAIN, packet[:-1] + b"\xff"  # a checksum that is wrong
    if kind == 2 and version == 4:
        return packets.PLAIN, packets.ipv4(
            mark + bytes(size), fragment=0x2000 | chance.randrange(99), **addresses
        )
    if kind == 3 and version == 6:
        options = bytes([17, 0, 1, 4, 0, 0, 0, 0]) + mark + bytes(size)
        return packets.PLAIN, packets.ipv6(options, protocol=60, **addresses)
    segment = chance.choice([256, 1000, 1312, chance.randrange(256, 1312)])
    body = mark + chance.randbytes(chance.choice([segment, 2 * segment, chance.randrange(segment, 62_000)]))
    if kind < 6:
        whole = packets.udp(body, version=version, tos=tos, **addresses)
    else:
        flags = ACK | chance.choice([0, PSH, FIN | PSH, CWR, CWR | ECE, ECE])
        options = chance.choice([b"", bytes([1, 1, 8, 10]) + bytes(8)])
        whole = packets.tcp(
            body,
            version=version,
            tos=tos,
            flags=flags,
            tcp_options=options,
            sequence=chance.randrange(1 << 32),
            **addresses,
        )
    if version == 6 and chance.random() < 0.3:
        whole = packets.with_options(whole, kind=chance.choice([0, 60]))
    packet, virtio = packets.as_super_packet(whole, segment)
    return virtio, packet


def story(chance, ciphers, has_gro, weather, joins_udp):
    """Return what left the far tun, and what the kernel would have made of what was sent."""
    world = World(ciphers=ciphers, has_gro=has_gro)
    a, b = world.node("a"), world.node("b")
    b.joins_udp = joins_udp
    b.restart()
    a.know(b)
    b.know(a)
    a.send_super(b, 3000)
    world.run(1)
    forget(a, b)
    for name, value in weather.items():
        setattr(world.network, name, value)
    wanted = []
    for number in range(30):
        virtio, packet = any_packet(chance, a, b, number)
        a.tun.outgoing.append(virtio + packet)
        wanted += packets.kernel_segments(packet, virtio)
        if chance.random() < 0.6:  # else it is read together with the next
            world.run(chance.choice([0, 0, 0.001, 0.05]))
    world.run(3)
    return b.received, wanted


@examples(40)
@given(st.integers(0, 2**32), st.sampled_from([BOTH, BOTH[1:]]), st.booleans(), st.booleans())
def test_what_leaves_the_far_tun_is_what_the_kernel_would_have_delivered(seed, ciphers, has_gro, joins_udp):
    received, wanted = story(random.Random(seed), ciphers, has_gro, {}, joins_udp)
    alone, _ = story(random.Random(seed), [], has_gro, {}, joins_udp)

    assert received == wanted
    assert alone == wanted


@examples(40)
@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([0, 0.001, 0.02, 0.2]),
    st.sampled_from([0, 0.1]),
    st.sampled_from([0, 0.1]),
)
def test_in_any_weather_nothing_is_corrupted_or_doubled(seed, has_gro, loss, reorder, duplicate):
    weather = {"loss": loss, "reorder": reorder, "duplicate": duplicate}
    received, wanted = story(random.Random(seed), BOTH, has_gro, weather, True)

    assert extra(wanted, received) == {}
    if not loss:
        assert missing(wanted, received) == {}


@examples(40)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([packets.tcp, packets.udp]))
def test_what_is_wrong_in_a_packet_of_a_flow_is_wrong_when_it_arrives(seed, has_gro, make):
    """Segments are joined where they arrive, and the kernel computes the checksums of those anew."""
    chance = random.Random(seed)
    world = World(ciphers=BOTH, has_gro=has_gro)
    a, b = world.pair()
    connected(world, a, b)
    version, size = chance.choice([4, 6]), chance.choice([500, 501, 1360])
    addresses = {"source": a.inner(version), "destination": b.inner(version), "version": version}
    sent = []
    for number in range(40):
        how = {"sequence": number * size} if make is packets.tcp else {}
        how |= {"identifier": number} if version == 4 else {}
        packet = bytearray(make(chance.randbytes(size), **addresses, **how))
        if chance.random() < 0.2:
            packet[chance.randrange(packets.l4_start(packet), len(packet))] ^= 1 << chance.randrange(8)
        sent.append(bytes(packet))
    a.tun.outgoing += [packets.PLAIN + packet for packet in sent]

    world.run(1)

    assert b.received == sent


def test_a_unit_that_is_missing_holds_nothing_up(world, pair):
    a, b = pair
    connected(world, a, b)
    lost = []
    world.network.lose = lambda flight: flight.kind == "fragment" and not lost and lost.append(flight) is None
    a.send_super(b, 20_000)
    second = a.send_super(b, 20_000, sequence=20_000)

    world.run(RTT)

    assert b.received == second


# Pings

PING = 32 + len(control.build(control.Ping(2**63)))


def ping(world, node, number=1, count=1):
    """Ping peer *number*, with what is told of it in a second."""
    node.reported.clear()
    for identifier in range(count):
        node.tell(PingPeer(number, identifier))
    world.run(1)
    return [each for each in node.reported if isinstance(each, Ponged)]


def reported(node, kind):
    return [each for each in node.reported if isinstance(each, kind)]


def test_a_ping_tells_the_round_trip(world, pair):
    a, b = pair
    connected(world, a, b)

    told = ping(world, a)

    assert told == [Ponged(1, 0, pytest.approx(RTT))]
    assert [size for *_, size in world.network.sent] == [PING, PING]
    assert a.received == b.received == []
    assert a.drops == b.drops == {}


def test_both_ends_may_ping(world, pair):
    a, b = pair
    connected(world, a, b)

    assert ping(world, a) == ping(world, b) == [Ponged(1, 0, pytest.approx(RTT))]


@pytest.mark.parametrize("side", ["ping", "pong"])
def test_a_ping_that_is_lost_is_told_of_no_more(world, pair, side):
    a, b = pair
    connected(world, a, b)
    loser = a if side == "ping" else b
    world.network.lose = lambda flight: flight.source[0] in loser.addresses

    assert ping(world, a) == []

    world.network.lose = lambda flight: False
    assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]
    assert a.drops == b.drops == {}


def test_a_peer_that_has_said_no_hello_is_not_pinged(world, pair):
    a, b = pair
    a.send(b)
    world.run(1)
    forget(a, b)

    assert ping(world, a) == [Ponged(1, 0, None)]
    assert world.network.sent == []


def test_a_plain_peer_never_gets_a_ping(world):
    a = world.node("a")
    world.ciphers = []
    b = world.node("b")
    a.know(b)
    b.know(a)
    Stream(world, a, b).go_on(10, every=0.1)
    forget(a, b)

    assert ping(world, a) == [Ponged(1, 0, None)]
    assert "data" not in kinds(world, "a")
    assert b.drops == {"inner_version": 3}  # the hellos that super-packets led to


def test_an_end_without_units_pings_nobody(world):
    b = world.node("b")
    world.ciphers = []
    a = world.node("a")
    a.know(b)
    b.know(a)
    Stream(world, b, a).go_on(0.2)

    assert ping(world, a) == [Ponged(1, 0, None)]


def test_a_version_without_pings_is_not_pinged(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    older = control.Hello(tuple(BOTH), 65_555, 255, 1420, is_answer=True)

    keypair.bulk = Bulk([], BOTH, keypair.remote_index, 1420)
    keypair.bulk.take_hello(older, world.clock.now)

    assert ping(world, a) == [Ponged(1, 0, None)]
    assert world.network.sent == []


@pytest.mark.parametrize("message", [b"\x92\x0f\x80", b"\x92\x0f\x81\xa2id\x07", b"\x80"])
def test_a_version_that_does_not_know_a_message_ignores_it(world, pair, message):
    a, b = pair
    connected(world, a, b)
    world.run(5)  # what flowed until now is probed for once more
    forget(a, b)

    a.core.outbound.send_payload(a.peer(), a.peer().keypairs.current, message + bytes(-len(message) % 16))
    world.run(60)

    assert kinds(world, "b") == {}
    assert b.drops == {}


def test_nobody_is_pinged_who_is_no_peer(world, pair):
    a, _ = pair

    assert ping(world, a, number=7) == [Ponged(7, 0, None)]


def test_what_was_said_under_one_keypair_holds_for_no_other(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(6)  # a handshake that soon after another is not begun
    a.want(1)
    world.run(1)
    assert len(world.sent("initiation")) == 1

    assert ping(world, a) == [Ponged(1, 0, None)]


def test_a_peer_that_began_anew_is_not_pinged_before_it_says_hello(world, pair):
    a, b = pair
    connected(world, a, b)
    b.restart()
    b.want(1)
    world.run(1)

    assert ping(world, a) == [Ponged(1, 0, None)]

    connected(world, a, b)
    assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]


def test_a_pong_starts_no_timer_at_either_end(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(15)  # what the transfer owed has been sent
    forget(a, b)

    ping(world, a)
    world.run(100)

    assert [size for *_, size in world.network.sent] == [PING, PING]


def test_neither_pings_nor_pongs_keep_the_keys_of_the_answering_end_alive(world, pair):
    a, b = pair
    connected(world, b, a)  # b is the initiator, who renews keys
    assert b.peer().keypairs.current.is_initiator
    world.run(15)
    forget(a, b)

    for _ in range(30):
        assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]
        world.run(3)
    b.reported.clear()
    world.run(100)

    assert reported(b, Wanted) == []


def test_a_ping_under_old_keys_asks_for_new_ones_and_a_pong_does_not(world, pair):
    a, b = pair
    connected(world, a, b)
    assert a.peer().keypairs.current.is_initiator
    world.run(130)
    a.reported.clear()
    b.reported.clear()

    a.tell(PingPeer(1, 0))

    world.run(1)
    assert len(reported(a, Wanted)) == 1
    assert reported(b, Wanted) == []
    assert world.sent("initiation", "a")


def test_pings_that_nobody_answers_lead_to_a_handshake(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(15)
    world.network.lose = lambda flight: flight.source[0] in b.addresses
    forget(a, b)

    ping(world, a)
    assert world.sent("initiation") == []
    world.run(16)

    assert world.sent("initiation", "a")


def test_a_flood_of_pings_is_answered_in_part(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current

    for identifier in range(500):
        a.core.outbound.send_payload(a.peer(), keypair, control.build(control.Ping(identifier)))
    world.run(1)

    answered = kinds(world, "b")["data"]
    assert PONGS_AT_ONCE <= answered < 100
    assert b.drops["ping_rate"] + b.drops["control_rate"] == 500 - answered
    assert a.drops == {"pong_unexpected": answered}
    assert ping(world, a) == [Ponged(1, 0, pytest.approx(RTT))]


def test_pings_that_wait_are_bounded(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: flight.source[0] in b.addresses

    ping(world, a, count=PINGS_WAITING * 3)

    assert len(a.core.in_band.pings._sent) == PINGS_WAITING


def test_pings_go_on_in_the_middle_of_a_transfer(world, pair):
    a, b = pair
    stream = Stream(world, a, b)
    stream.go_on(0.5)
    a.reported.clear()

    for identifier in range(20):
        a.tell(PingPeer(1, identifier))
        stream.go_on(0.05)
    world.run(1)

    assert [each.seconds for each in reported(a, Ponged)] == [pytest.approx(RTT, abs=0.011)] * 20
    assert b.received == stream.sent
