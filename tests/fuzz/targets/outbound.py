"""The outbound path of whole nodes: what hosts and containers send through the device.

The header before a packet comes from the kernel; the packet is arbitrary.
"""

from __future__ import annotations

from tests import packets
from tests.fuzz.target import join, split
from tests.fuzz.targets import frames as some_frames
from tests.fuzz.targets.inbound import AES_256_GCM, MOST, PLAIN, UNITS, Bench, sees_packet, session

FRAMES = Bench(lambda: session(ciphers=[AES_256_GCM], is_tap=True))


def _read(world, header, pieces):
    a, _ = world.nodes
    a.tun.outgoing += [header + each for each in pieces]
    world.run(0.1)


def packets_out(data):
    if not data:
        return
    with UNITS if data[0] & 1 else PLAIN as world:
        _read(world, packets.PLAIN, [each for each in split(data[1:], MOST) if each])
        sees_packet(world)


def frames(data):
    """A sender that uses another station's address gets that station's packets: afterwards, no packet is expected."""
    with FRAMES as world:
        _read(world, packets.PLAIN, [each for each in split(data, MOST) if len(each) >= 14])


def packet_seeds():
    with PLAIN as world:
        a, b = world.nodes
        for version in (4, 6):
            ends = {"source": a.inner(version), "destination": b.inner(version), "version": version}
            for flags in (b"\0", b"\1"):
                yield flags + join([packets.udp(bytes(100), **ends)] * 3)
                yield flags + join([packets.udp(bytes(1500), **ends), packets.tcp(bytes(9), **ends)])
                yield flags + join([packets.tcp(flags=packets.SYN, tcp_options=bytes([2, 4, 9, 9]), **ends)])


def frame_seeds():
    with FRAMES as world:
        a, b = world.nodes
        yield join(
            [b.mac + a.mac + b"\x08\0" + packets.udp(b"x", source=a.inner(), destination=b.inner())] * 3
        )
        yield join(list(some_frames.seeds()))
