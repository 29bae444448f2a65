"""Two ends that exchange units, and datagrams that are changed in transit."""

from __future__ import annotations

import random

from overlay.forwarding.bulk.size import WHOLE, UnitSize
from tests import packets, units
from tests.network import Flight
from tests.sim import World

ELSEWHERE = ("198.51.100.9", 9)
PIECE = 1436


class Bench:
    """Node b with a session from a in which both have said hello, and methods that forge what arrives at b."""

    def __init__(self, *, has_gro=True, ciphers=(units.AES, units.CHACHA), joins_udp=True):
        self.world = World(has_gro=has_gro, ciphers=ciphers)
        self.a, self.b = self.world.node("a"), self.world.node("b")
        self.b.joins_udp = joins_udp
        self.b.restart_forwarder()
        self.a.know(self.b)
        self.b.know(self.a)
        self.a.send_super(self.b, 3000)
        self.world.run(1)
        self.b.tun.writes.clear()
        self.b.received.clear()
        self.socket, self.peer = self.b.sockets[0], self.b.peer()
        self.key = self.a.peer().keypairs.current.bulk.key
        self.a.peer().keypairs.current.bulk.size = UnitSize(WHOLE)  # as if the path were known
        self.source = (self.a.addresses[0], self.a.port)
        assert self.b.drops == {}

    @property
    def reassembly(self):
        return self.b.core.inbound.units.reassembly

    def packet(self, size=6000, segment=1360, version=4, protocol=packets.TCP, **how):
        """Return (packet, virtio header) of a super-packet from a to b."""
        addresses = {"source": self.a.inner(version), "destination": self.b.inner(version)}
        make = packets.tcp if protocol == packets.TCP else packets.udp
        body = random.Random(size).randbytes(size)
        return packets.as_super_packet(make(body, version=version, **addresses | how), segment)

    def plain(self, packet, virtio):
        return units.plaintext(packet, virtio[1], int.from_bytes(virtio[4:6], "little"))

    def sealed(self, plain, counter=None, piece=PIECE):
        """Return the datagrams of a genuine unit of any plaintext, under any counter."""
        if counter is None:
            counter, self.key.counter = self.key.counter, self.key.counter + 1
        whole = bytearray(len(plain) + 16)
        self.key.seal(bytes(4) + counter.to_bytes(8, "little"), plain, None, whole)
        return units.datagrams(bytes(whole), self.key.cipher, self.key.receiver_index, counter, piece)

    def unit(self, counter=None, piece=PIECE, **how):
        """Return (datagrams, the segments they stand for) of a new unit."""
        packet, virtio = self.packet(**how)
        return self.sealed(self.plain(packet, virtio), counter, piece), packets.kernel_segments(
            packet, virtio
        )

    def arrive(self, *datagrams, source=None, tos=0):
        """Let b receive *datagrams* now."""
        destination = (self.b.addresses[0], self.b.port)
        self.socket.inbox += [Flight(source or self.source, destination, each, tos) for each in datagrams]
        self.world.run(0)

    def message(self, packet):
        """Return a genuine transport message of a."""
        keypair = self.a.peer().keypairs.current
        counter, keypair.counter = keypair.counter, keypair.counter + 1
        sealed = bytearray(len(packet) + 16)
        keypair.seal(bytes(4) + counter.to_bytes(8, "little"), packet, None, sealed)
        header = b"\4\0\0\0" + keypair.remote_index.to_bytes(4, "little") + counter.to_bytes(8, "little")
        return header + bytes(sealed)


def changed(data, at, *values):
    copy = bytearray(data)
    copy[at : at + len(values)] = values
    return bytes(copy)
