"""Padding is zeros, whatever was in the buffer before: nothing of an earlier packet leaves."""

from __future__ import annotations

import pytest

from overlay.forwarding.underlay.batching import PROBE
from overlay.wire.ip import packet_length
from tests import packets
from tests.sim import World

LARGE = 1300  # bytes of UDP payload, all ones, that go before


@pytest.fixture
def tapped():
    """Return nodes a and b with a session, and the list of what a sends from now on."""
    world = World()
    a, b = world.pair()
    a.send(b)
    b.send(a)
    world.run(1)
    sent = []
    world.network.lose = lambda flight: flight.source[0] in a.addresses and sent.append(flight.datagram)
    return world, a, b, sent


def opened(node, datagram):
    """Return the payload of a transport message to *node*, without changing its window."""
    plain = bytearray(len(datagram) - 32)
    node.peer().keypairs.current.open(bytes(4) + datagram[8:16], datagram[16:], None, plain)
    return bytes(plain)


def ones(a, b, size, version):
    return packets.udp(b"\xff" * size, version=version, source=a.inner(version), destination=b.inner(version))


def send(world, a, made):
    a.tun.outgoing += [packets.PLAIN + packet for packet in made]
    world.run(0.1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_padding_is_zeros_after_a_longer_packet(tapped, count, version):
    world, a, b, sent = tapped
    for size in range(20, 37):
        send(world, a, [ones(a, b, LARGE, version)] * max(count, PROBE))  # and batches are taken from here on
        short = ones(a, b, size, version)
        sent.clear()

        send(world, a, [short] * count)

        payloads = [opened(b, datagram) for datagram in sent if datagram[0] == 4]
        assert len(payloads) == count
        for payload in payloads:
            assert payload[: len(short)] == short
            assert payload[len(short) :] == bytes(-len(short) % 16)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("segment", [1360, 1353, 500])
def test_padding_of_every_segment_is_zeros(tapped, segment, version):
    world, a, b, sent = tapped
    for _ in range(2):  # the second time in buffers that were used before
        sent.clear()
        whole = packets.tcp(
            b"\xff" * (5 * segment + 77),
            version=version,
            source=a.inner(version),
            destination=b.inner(version),
        )
        packet, virtio = packets.as_super_packet(whole, segment)
        a.tun.outgoing.append(virtio + packet)
        world.run(0.1)

        payloads = [opened(b, datagram) for datagram in sent if datagram[0] == 4]
        assert len(payloads) == 6
        for payload in payloads:
            length = packet_length(payload)
            assert len(payload) - length < 16
            assert not any(payload[length:])


@pytest.mark.parametrize("size", range(20, 37))
@pytest.mark.parametrize("count", [1, 8])
def test_padding_of_frames_is_zeros(count, size):
    world = World(is_tap=True)
    a, b = world.pair()
    for node in (a, b):
        node.send_frame(b"\xff" * 6, packets.udp(b"hello"))
        world.run(1)
    sent = []
    world.network.lose = lambda flight: flight.source[0] in a.addresses and sent.append(flight.datagram)
    for _ in range(PROBE):
        a.send_frame(b.mac, ones(a, b, LARGE, 4))
    world.run(0.1)
    sent.clear()

    for _ in range(count):
        frame = a.send_frame(b.mac, ones(a, b, size, 4))
    world.run(0.1)

    payloads = [opened(b, datagram) for datagram in sent if datagram[0] == 4]
    assert len(payloads) == count
    for payload in payloads:
        before, padding = len(payload) - len(frame) - payload[1], payload[1]
        assert payload[before : before + len(frame)] == frame
        assert payload[len(payload) - padding :] == bytes(padding)
