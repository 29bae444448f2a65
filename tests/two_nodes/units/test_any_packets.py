"""Any packets with any loss and order, compared with a twin that sends packet by packet."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests import packets
from tests.hypothesis_profiles import examples
from tests.packets import ACK, CWR, ECE, FIN, PSH
from tests.sim import World
from tests.two_nodes.units.streams import BOTH, RTT, connected, extra, forget, missing


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
        if chance.random() < 0.6:  # otherwise it is read together with the next
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
    """Segments are joined where they arrive, and the kernel computes their checksums again."""
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
