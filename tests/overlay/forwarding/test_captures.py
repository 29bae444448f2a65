"""Captures of dropped packets: the reports of both packet paths, which never wait for a reader."""

from __future__ import annotations

import pytest

from overlay.forwarding import native
from overlay.forwarding.captures import MOST_CAPTURES, PAUSE
from overlay.link.messages import BeginCapture, EndCapture
from overlay.reasons import REASONS
from overlay.wire.dropped import Dropped, DroppedKind
from tests import packets
from tests.network import Flight
from tests.sim import World

NAMES = list(REASONS)


class Sink:
    """The socket of a capture; it is full, or has no reader, as *error* says."""

    def __init__(self):
        self.messages, self.error, self.is_open, self.tries = [], None, True, 0

    def send(self, data, _):
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.messages.append(Dropped.parse(data))

    def close(self):
        self.is_open = False

    @property
    def told(self):
        return [(NAMES[each.reason], each.peer, each.count) for each in self.messages]


@pytest.fixture(params=["interpreted", "compiled"])
def pair(request):
    if request.param == "compiled" and native.core is None:
        pytest.skip(f"no compiled packet path: {native.missing}")
    world = World(is_compiled=request.param == "compiled")
    a, b = world.pair()
    a.send(b)
    b.send(a)
    world.run(1)
    return world, a, b


def begin(node, number=1, snaplen=1 << 16):
    sink = Sink()
    node.core.captures.begin(BeginCapture(number, snaplen), [sink])
    node.core.jobs.run(0.0)
    return sink


def come(world, a, b, *datagrams):
    """Make *datagrams* arrive at *b* from the address of *a*."""
    ends = (a.addresses[0], a.port), (b.addresses[0], b.port)
    b.sockets[0].inbox += [Flight(*ends, each) for each in datagrams]
    world.run(0.1)


def test_packet_whose_source_is_not_of_the_peer_is_told_whole(pair):
    world, a, b = pair
    sink = begin(b)
    packet = packets.udp(b"hello", source="198.51.100.1", destination=b.inner(4))

    a.tun.outgoing.append(packets.PLAIN + packet)
    world.run(0.1)

    assert sink.told == [("source", 1, 1)]
    assert sink.messages[0].kind == DroppedKind.PACKET
    assert sink.messages[0].data[: len(packet)] == packet


def test_packet_that_no_peer_has_is_told_with_no_peer(pair):
    world, a, _ = pair
    sink = begin(a)
    packet = packets.udp(b"hello", source=a.inner(4), destination="203.0.113.1")

    a.tun.outgoing.append(packets.PLAIN + packet)
    world.run(0.1)

    assert sink.told == [("no_peer", 0, 1)]
    assert sink.messages[0].data == packet


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("ff02::16", "tun_multicast"),  # a kernel announces its groups there at any time
        ("224.0.0.251", "tun_multicast"),
        ("255.255.255.255", "tun_multicast"),
        ("240.0.0.1", "no_peer"),
        ("fd00:99::1", "no_peer"),
    ],
)
def test_packet_for_many_is_not_taken_for_one_to_an_address_that_no_peer_has(pair, destination, reason):
    world, a, _ = pair
    sink = begin(a)
    ends = {"source": a.inner(4), "destination": destination}
    if ":" in destination:
        ends |= {"source": "::", "version": 6}

    a.tun.outgoing.append(packets.PLAIN + packets.udp(b"hello", **ends))
    world.run(0.1)

    assert sink.told == [(reason, 0, 1)]


def test_datagrams_that_are_nothing_are_told_one_by_one(pair):
    world, a, b = pair
    sink = begin(b)

    come(world, a, b, b"\4\0\0\0" + bytes(60), b"\x09\0\0\0" + bytes(60), b"\4\0\0\0short", b"\1\0\0\0x")

    assert sorted(sink.told) == [
        ("initiation_size", 0, 1), ("transport_short", 0, 1), ("unknown_index", 0, 1), ("unknown_type", 0, 1),
    ]  # fmt: skip
    assert {each.kind for each in sink.messages} == {DroppedKind.DATAGRAM}
    assert b"\x09\0\0\0" + bytes(60) in {each.data for each in sink.messages}


def test_forged_and_repeated_messages_are_told_of_their_peer(pair):
    world, a, b = pair
    seen, send = [], world.network.send
    world.network.send = lambda flight, sender="?": (seen.append(flight), send(flight, sender))
    a.send(b)
    world.run(0.1)
    sink = begin(b)
    genuine = next(bytes(each.datagram) for each in seen if bytes(each.datagram)[0] == 4)

    come(world, a, b, genuine, genuine[:-1] + bytes([genuine[-1] ^ 1]))

    assert sorted(sink.told) == [("replay", 1, 1), ("transport_auth", 1, 1)]
    forged = next(each for each in sink.messages if each.kind == DroppedKind.DATAGRAM)
    assert forged.data == genuine[:16]


def test_packets_are_cut_and_their_length_is_told(pair):
    world, a, _ = pair
    sink = begin(a, snaplen=20)

    a.tun.outgoing.append(
        packets.PLAIN + packets.udp(bytes(500), source=a.inner(4), destination="203.0.113.1")
    )
    world.run(0.1)

    assert (len(sink.messages[0].data), sink.messages[0].length) == (20, 528)


def drop(world, node, count):
    for _ in range(count):
        packet = packets.udp(b"x", source=node.inner(4), destination="203.0.113.1")
        node.tun.outgoing.append(packets.PLAIN + packet)
        world.run(0.01)


def test_full_socket_holds_nothing_up_and_is_told_what_it_has_missed(pair):
    world, a, _ = pair
    sink = begin(a)
    sink.error = BlockingIOError()
    drop(world, a, 10)
    assert sink.tries == 1  # it is left alone for a while
    sink.error = None

    drop(world, a, PAUSE)

    assert sink.messages[0].missed == 1 + PAUSE
    assert len(sink.messages) + sink.messages[-1].missed == 10 + PAUSE


def test_what_was_missed_is_told_at_the_end_though_nothing_is_dropped_any_more(pair):
    world, a, _ = pair
    sink = begin(a)
    sink.error = BlockingIOError()
    drop(world, a, 10)
    sink.error = None

    a.core.captures.end(1)

    assert [(each.kind, each.count, each.missed) for each in sink.messages] == [(DroppedKind.NOTHING, 0, 10)]
    assert not sink.is_open


def test_socket_that_nobody_reads_is_closed(pair):
    world, a, _ = pair
    gone, other = begin(a), begin(a, number=2)
    gone.error = BrokenPipeError()

    drop(world, a, 2)

    assert not gone.is_open
    assert len(other.messages) == 2


def test_after_its_end_a_capture_is_told_nothing_and_no_drop_is_watched(pair):
    world, a, _ = pair
    sink = begin(a)
    a.core.captures.end(1)
    a.core.jobs.run(0.0)

    del sink.messages[:]  # the last one reports what was missed
    drop(world, a, 2)

    assert sink.messages == []
    assert not sink.is_open
    assert a.core.drops.watch is None
    assert all(peer.drops.watch is None for peer in a.core.peers.values())


def test_what_the_agent_cannot_mean_is_refused_and_its_sockets_are_closed(pair):
    _, a, _ = pair
    begin(a)
    refused = [Sink() for _ in range(4)]

    a.core.captures.begin(BeginCapture(1, 100), refused[:1])  # the number is taken
    a.core.captures.begin(BeginCapture(2, 100), refused[1:3])
    a.core.captures.begin(BeginCapture(3, 100), [])
    for number in range(2, MOST_CAPTURES + 1):
        begin(a, number)
    a.core.captures.begin(BeginCapture(99, 100), refused[3:])

    assert not any(sink.is_open for sink in refused)
    assert a.core.drops["link"] == 4
    a.core.captures.end(1234)


def test_peer_that_is_added_during_a_capture_is_watched(pair):
    _, a, _ = pair
    begin(a)
    peer = type(a.peer())(77)

    a.core.captures.watch(peer)
    peer.drops.add("send_full")

    assert EndCapture(1).number == 1
    assert peer.drops.watch is not None
