"""A core with a session with one peer."""

from __future__ import annotations

import struct

from overlay.wire.messages import TAG_SIZE, TRANSPORT_HEADER
from tests import packets
from tests.network import Flight
from tests.sim import World


class Bench:
    """Node b with a session from a, and methods that forge what arrives at b."""

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
        """Drops of the forwarder, and messages that it showed to the agent, which refused them."""
        return self.b.drops + self.b.refused
