"""Which frames of a tap the compiled twin handles, and what it is told about stations."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.forwarding import native
from overlay.forwarding.compiled import IN_DONE, IN_EDGE, IN_EMPTY, RESULT
from overlay.forwarding.ethernet.bridge import AGEING_TIME
from overlay.wire.bulk import AES_256_GCM
from tests import packets
from tests.on_link import EVERYBODY, arp, station
from tests.sim import World

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")

STATION = b"\2\0\0\0\0\1"  # at the first node
TAGS = {"untagged": b"", "tagged": b"\x81\0\0\x07", "tagged twice": b"\x88\xa8\0\x08\x81\0\0\x07"}


@pytest.fixture(params=["messages", "units", "vxlan", "geneve"])
def taps(request):
    """Return a world of two taps whose stations have sent something, and what has been left to Python since then."""
    if request.param in ENCAPSULATIONS:
        return met(encapsulation=request.param)
    return met(ciphers=[AES_256_GCM] if request.param == "units" else [])


def met(*, encapsulation="wireguard", **how):
    gc.collect()  # with a peer of another world, the twin would forget everything
    world = World(is_tap=True, is_compiled=True, **how)
    is_sealed = encapsulation == "wireguard"
    a, b = world.pair() if is_sealed else world.clear_pair(encapsulation=encapsulation)
    for _ in range(
        2
    ):  # with a first super-frame goes the hello, and what the far end cannot tell whose it is, comes back
        for node, other in ((a, b), (b, a)):
            node.send_frame(EVERYBODY, arp(station(node))[12:])
            world.run(1)
            send(node, other, 1)
            send_super(node, other)
            world.run(1)
    for node in (a, b):
        node.received.clear()
        if not is_sealed:
            node.peer().path.due = math.inf  # once a second Python asks the kernel about the path
    world.run(0.01)
    return world, a, b, left_to_python(a, b)


def left_to_python(*nodes):
    """Return a list that collects what the twins of *nodes* leave to Python: sent and received frames."""
    left = []
    for node in nodes:
        twin = node.core.inbound.compiled
        go_on, see_to = twin._go_on, twin.see_to_udp

        def sent(*given, go_on=go_on, **how):
            left.append("sent")
            go_on(*given, **how)

        def came(result, *rest, see_to=see_to):
            if result & RESULT not in {IN_DONE, IN_EMPTY, IN_EDGE}:
                left.append("came")
            return see_to(result, *rest)

        twin._go_on, twin.see_to_udp = sent, came
        for name in ("_remember_source", "_remember_sender", "_take_unit"):
            done = getattr(twin, name)
            setattr(twin, name, lambda *given, done=done, name=name: left.append(name) or done(*given))
    return left


def ends(node, other, version):
    return {"version": version, "source": node.inner(version), "destination": other.inner(version)}


def send(node, other, count, version=4, tag=b""):
    """Let a station at *node* send UDP packets of different sizes to one at *other*, and return the frames."""
    made = [packets.udp(bytes(20 + 30 * number), **ends(node, other, version)) for number in range(count)]
    return [node.send_frame(station(other), each, source=station(node), tag=tag) for each in made]


def send_super(node, other, version=4, tag=b"", size=30_000):
    """Do the same with a TCP super-packet."""
    whole = packets.tcp(bytes(size), **ends(node, other, version))
    packet, virtio = packets.as_super_frame(whole, 1300, 14 + len(tag))
    node.send_frame(station(other), packet, virtio=virtio, source=station(node), tag=tag)
    begin = station(other) + station(node) + tag + {4: b"\x08\0", 6: b"\x86\xdd"}[version]
    return [begin + each for each in packets.kernel_segments(packet, packets.as_super_packet(whole, 1300)[1])]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tag", TAGS)
def test_frames_between_known_stations_are_not_left_to_python(taps, version, tag):
    world, a, b, left = taps

    sent = send(a, b, 5, version, TAGS[tag])
    world.run(0.01)
    sent += send_super(a, b, version, TAGS[tag])
    world.run(0.01)

    assert b.received == sent
    assert left == []


def test_segments_that_come_merged_enter_the_tap_as_one(taps):
    world, a, b, left = taps
    b.tun.writes.clear()

    send_super(a, b)
    world.run(0.01)

    assert len(b.tun.writes) < 4
    assert left == []


@pytest.mark.parametrize(
    "frame",
    [
        arp(STATION),
        EVERYBODY + STATION + packets.with_ethertype(packets.udp(b"x")),
        b"\2\0\0\0\7\7" + STATION + packets.with_ethertype(packets.udp(b"x")),
        b"\2\0\0\0\0\2" + STATION + b"\x88\xb5" + bytes(46),
        b"\2\0\0\0\0\2" + b"\2\0\0\0\7\1" + packets.with_ethertype(packets.udp(b"x")),
        b"\2\0\0\0\0\2" + STATION + b"\x86\xdd" + packets.ipv6(bytes(24), protocol=58),
    ],
    ids=["ARP", "for everybody", "for nobody known", "no IP", "from nobody known", "ICMPv6"],
)
def test_what_the_bridge_has_to_look_at_is_left_to_it(taps, frame):
    world, a, _, left = taps

    a.tun.outgoing.append(packets.PLAIN + frame)
    world.run(0.01)

    assert left[:1] == ["sent"]


def test_a_frame_that_python_does_not_see_tells_the_bridge_when_its_sender_was_there(taps):
    world, a, b, left = taps
    world.run(1)

    send(b, a, 1)
    world.run(0.01)

    assert world.clock.now - a.core.bridge.known(station(b))[1].seen_at < 0.1
    assert left == []


def test_a_station_that_was_silent_too_long_is_the_bridges_to_find(taps):
    world, a, b, left = taps
    a.core.bridge.known(station(b))[1].seen_at = world.clock.now - AGEING_TIME

    send(a, b, 1)
    world.run(0.01)

    assert left[:1] == ["sent"]


def test_a_station_that_moved_is_sent_to_where_it_is_now(taps):
    world, a, b, _ = taps
    laptop = station(a, 1)
    for _ in range(2):
        a.send_frame(station(b), packets.udp(b"x"), source=laptop)
        b.send_frame(laptop, packets.udp(b"x"))
        world.run(10)  # no frame of its own returns any more
    b.received.clear()

    b.tun.outgoing.append(packets.PLAIN + arp(laptop))
    world.run(1)
    sent = [a.send_frame(laptop, packets.udp(b"x")) for _ in range(2)]
    world.run(1)

    assert b.received == sent


def test_a_station_that_becomes_static_elsewhere_is_forgotten_by_the_twin(taps):
    world, a, b, _ = taps
    b.tell(dataclasses.replace(b.peer().settings, macs=[station(b)]))

    send(a, b, 1)
    send(b, a, 1)
    world.run(0.01)

    assert a.received == []
    assert b.core.drops["mac"] == 1


def test_a_frame_from_a_port_of_this_node_to_a_peer_does_not_go_round(taps):
    world, a, b, _ = taps
    own = next(port for ports in a.core.places.own_ports.values() for port in ports)
    ports = int.from_bytes(own, "big"), a.peer().endpoint[1]
    packet = packets.udp(b"x", source=a.addresses[0], destination=b.addresses[0], ports=ports)

    a.send_frame(station(b), packet, source=station(a))
    world.run(0.01)

    assert a.core.drops["loop"] == 1
    assert b.received == []


def test_stations_go_with_the_lane_that_remembers_them():
    world, a, b, _ = met()
    cores = [weakref.ref(node.core) for node in (a, b)]
    entries = [weakref.ref(node.core.bridge) for node in (a, b)]

    del world, a, b, _
    gc.collect()

    assert [each() for each in (*cores, *entries)] == [None] * 4
