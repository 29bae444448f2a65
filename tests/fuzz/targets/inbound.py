"""The inbound path of whole nodes: datagrams of strangers, and of a peer with arbitrary plaintext.

After each input a genuine packet still arrives: nobody can end a session from outside.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from overlay.reasons import REASONS
from overlay.wire import control
from overlay.wire import frames as frame_payload
from overlay.wire.bulk import AES_256_GCM
from overlay.wire.messages import TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT
from tests import packets, units
from tests.fuzz.target import join, split
from tests.fuzz.targets import frames as some_frames
from tests.network import Flight
from tests.sim import CLEAR_PORT, VNI, World

LONGEST = 3000  # bytes of a datagram: all paths, and no time lost
MOST = 8  # datagrams at once
USES = 100  # of one world, so that earlier inputs explain little of what is found


@dataclass
class Bench:
    """Worlds of one kind, each used for several inputs; one in which something failed is not used again."""

    make: Any
    world: Any = None
    uses: int = 0

    def __enter__(self):
        if self.world is None or self.uses >= USES:
            self.world, self.uses = self.make(), 0
        self.uses += 1
        return self.world

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            self.world = None


def session(**how):
    """Return a world with a session between its nodes a and b."""
    world = World(**how)
    a, b = world.pair()
    if not world.is_tap:
        b.tun.packets_of = kernel_segments
    if world.is_tap:
        a.send_frame(b.mac, packets.udp(b"x", source=a.inner(), destination=b.inner()))
    else:
        a.send(b)
    world.run(1)
    if how.get("ciphers") and not world.is_tap:
        for one, other in ((a, b), (b, a)) * 3:  # until both have said hello
            one.send_super(other, 3000)
            world.run(0.5)
        assert a.peer().keypairs.current.bulk.key is not None
    return world


PLAIN = Bench(session)
UNITS = Bench(lambda: session(ciphers=[AES_256_GCM]))
FRAMES = Bench(lambda: session(ciphers=[AES_256_GCM], is_tap=True))


def kernel_segments(data, header):
    """Return what the kernel makes of a write: nothing if the peer's IPv4 checksum is wrong."""
    if data[:1] and data[0] >> 4 == 4 and not packets.is_ip_checksum_right(data):
        return []
    return packets.kernel_segments(data, header)


def receive(world, datagrams, *, is_stranger=False, tos=0, port=None, protocol=17, index=0):
    """Let node b receive *datagrams* at once, and check that the reasons for drops are registered."""
    a, b = world.nodes
    source = ("198.51.100.1" if is_stranger else a.addresses[0], a.port if port is None else port)
    here = b.addresses[0], b.sockets[index].port
    b.sockets[index].inbox += [
        Flight(source, here, each[:LONGEST], tos, protocol=protocol) for each in datagrams
    ]
    world.run(0.001)
    assert set(b.drops) <= set(REASONS), b.drops


def sees_packet(world):
    """Check that a genuine packet passes from a to b."""
    a, b = world.nodes
    b.received.clear()
    if world.is_tap:
        sent = [a.send_frame(b.mac, packets.udp(b"genuine", source=a.inner(), destination=b.inner()))]
    else:
        sent = a.send(b)
    world.run(0.1)
    assert all(each in b.received for each in sent)
    b.received.clear()
    b.tun.writes.clear()
    world.network.sent.clear()
    b.log.clear()
    b.reported.clear()


def datagrams(data):
    if not data:
        return
    with PLAIN as world:
        receive(world, split(data[1:], MOST), is_stranger=bool(data[0] & 1), tos=data[0] >> 1 & 3)
        sees_packet(world)


def datagram_seeds():
    with PLAIN as world:
        a, _b = world.nodes
        index = a.peer().keypairs.current.remote_index
        transport = TRANSPORT_HEADER.pack(TYPE_TRANSPORT, index, 2**20) + bytes(32)
        yield b"\0" + join([transport] * 3)
        yield b"\1" + join([transport, b"\1\0\0\0".ljust(148, b"x"), b"\2\0\0\0".ljust(92, b"x")])
        yield b"\2" + join([b"\3\0\0\0".ljust(64, b"x"), units.fragment(0, 2, 1, index, 1, b"piece")])


def seal(keypair, plaintext):
    """Return the transport message in which the owner of *keypair* sends *plaintext*."""
    counter, keypair.counter = keypair.counter, keypair.counter + 1
    sealed = bytearray(len(plaintext) + TAG_SIZE)
    keypair.seal(struct.pack("<4xQ", counter), plaintext, None, sealed)
    return TRANSPORT_HEADER.pack(TYPE_TRANSPORT, keypair.remote_index, counter) + bytes(sealed)


def _receive_sealed(world, data):
    keypair = world.nodes[0].peer().keypairs.current
    receive(world, [seal(keypair, each[:LONGEST]) for each in split(data[1:], MOST)], tos=data[0] & 3)


def sealed(data):
    if not data:
        return
    with UNITS as world:
        _receive_sealed(world, data)
        sees_packet(world)


def sealed_seeds():
    with PLAIN as world:
        a, b = world.nodes
        for version in (4, 6):
            ends = {"source": a.inner(version), "destination": b.inner(version), "version": version}
            yield b"\0" + join([packets.udp(bytes(100), **ends)] * 3)
            yield b"\3" + join([packets.tcp(bytes(100), sequence=100 * n, **ends) for n in range(3)])
            yield b"\0" + join([b"", packets.tcp(flags=packets.SYN, tcp_options=bytes([2, 4, 9, 9]), **ends)])
        hello = control.build(control.Hello((1,), 65000, 64, 65535, is_answer=True))
        yield b"\0" + join([hello, control.build(control.Report(1, 1, 1, 0)), control.build(control.Ping(1))])
        yield b"\0" + join([control.build(control.Probe(1)), control.build(control.Pong(1))])


def unit(data):
    """Two bytes say into how many pieces a unit is cut, and whether its last comes first; the rest is its plaintext."""
    if len(data) < 2:
        return
    with UNITS as world:
        keypair = world.nodes[0].peer().keypairs.current
        key = keypair.bulk.key
        plain, counter = data[2:], key.counter
        key.counter += 1
        whole = bytearray(len(plain) + TAG_SIZE)
        key.seal(struct.pack("<4xQ", counter), plain, None, whole)
        piece = max(len(whole) // (data[0] % 16 + 1), 1)
        pieces = units.datagrams(bytes(whole), AES_256_GCM, keypair.remote_index, counter, piece)[:255]
        receive(world, pieces[::-1] if data[1] & 1 else pieces, tos=data[1] >> 1 & 3)
        sees_packet(world)


def unit_seeds():
    with UNITS as world:
        a, b = world.nodes
        for version, gso_type in ((4, 1), (6, 4)):
            ends = {"source": a.inner(version), "destination": b.inner(version), "version": version}
            yield b"\3\0" + units.plaintext(packets.tcp(bytes(3000), **ends), gso_type, 1000)
            yield b"\0\1" + units.plaintext(packets.udp(bytes(3000), **ends), 5, 1000)


def frames(data):
    if not data:
        return
    with FRAMES as world:
        _receive_sealed(world, data)
        sees_packet(world)


def frame_seeds():
    with FRAMES as world:
        a, b = world.nodes
        packet = packets.udp(b"payload", source=a.inner(), destination=b.inner())
        frame = b.mac + a.mac + b"\x08\0" + packet
        yield b"\0" + join([frame_payload.build(frame)] * 3)
        yield b"\0" + join([packet, frame_payload.build(b"\xff" * 6 + a.mac + some_frames.ARP)])
        for each in some_frames.seeds():
            yield b"\0" + frame_payload.build(each)


def _clear_world(name):
    world = World()
    if name in {"udp", "vxlan"}:
        world.clear_pair(encapsulation=name)
    else:
        world.raw_pair(name)
    world.run(0.1)
    return world


CLEAR = {name: Bench(lambda name=name: _clear_world(name)) for name in ("udp", "vxlan", "ipip", "gre")}


def clear(data):
    if not data:
        return
    name = list(CLEAR)[data[0] & 3]
    with CLEAR[name] as world:
        _, b = world.nodes
        index = next(
            n for n, each in enumerate(b.sockets) if each.receives and (each.port or each.protocol != 17)
        )
        socket = b.sockets[index]
        port = CLEAR_PORT if socket.protocol == 17 else 0
        how = {"is_stranger": bool(data[0] & 4), "tos": data[0] >> 3 & 3, "port": port}
        receive(world, split(data[1:], MOST), protocol=socket.protocol, index=index, **how)
        sees_packet(world)


def clear_seeds():
    for number, bench in enumerate(CLEAR.values()):
        with bench as world:
            a, b = world.nodes
            for version in (4, 6):
                ends = {"source": a.inner(version), "destination": b.inner(version), "version": version}
                packet = packets.udp(b"payload", **ends)
                before = (
                    b"",
                    b"\x08\0\0\0" + struct.pack("!I", VNI << 8) + bytes(12) + b"\x08\0",
                    b"",
                    b"\0\0\x08\0",
                )[number]
                yield bytes([number]) + join([before + packet] * 3)
