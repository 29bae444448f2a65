"""Units that arrive: put together, opened, checked and written, whatever else arrives with them."""

from __future__ import annotations

import pytest

from tests import units
from tests.network import Flight
from tests.sim import World


class Bench:
    """Node b with a session from a in which both have said hello, and a hand to forge what arrives at b."""

    def __init__(self, *, has_gro=True):
        self.world = World(has_gro=has_gro, ciphers=[units.AES, units.CHACHA])
        self.a, self.b = self.world.pair()
        self.a.send_super(self.b, 3000)
        self.world.run(1)
        self.a.received.clear()
        self.b.received.clear()
        self.core, self.peer, self.socket = self.b.core, self.b.peer(), self.b.sockets[0]
        self.source = (self.a.addresses[0], self.a.port)
        assert self.b.drops == {}

    def arrive(self, *datagrams, source=None, tos=0):
        """Let b receive *datagrams* now."""
        destination = (self.b.addresses[0], self.b.port)
        self.socket.inbox += [Flight(source or self.source, destination, each, tos) for each in datagrams]
        self.world.run(0)


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return Bench(has_gro=request.param)


@pytest.mark.parametrize("size", [17, 31, 32, 33])
def test_any_number_of_tiny_fragments_in_one_receive_is_refused(bench, size):
    bench.arrive(*[b"\5" + bytes([number & 0xFF]) * (size - 1) for number in range(400)])

    assert bench.b.drops == {"unknown_index": 400}
