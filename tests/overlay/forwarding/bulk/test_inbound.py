"""What the receiver of units remembers; test_units and others test the units themselves."""

from __future__ import annotations

import struct

import pytest

from overlay.forwarding.bulk.inbound import LAYOUTS
from overlay.wire.bulk import AES_256_GCM
from tests.network import Flight
from tests.sim import World


@pytest.fixture
def pair():
    """Nodes with a session and units, with nothing in flight."""
    world = World(ciphers=[AES_256_GCM])
    a, b = world.pair()
    a.send(b)
    world.run(1)
    a.send_super(b, 20_000)
    world.run(1)
    return a, b


def test_layouts_of_units_are_remembered_in_bounds(pair):
    a, b = pair
    inbound = b.core.inbound
    index = a.peer().keypairs.current.remote_index
    source = (a.addresses[0], 4000)
    for number in range(2 * LAYOUTS + 10):
        size, count = 40 + number, 2 + number % 3
        pieces = [
            struct.pack("<BBBBIQ", 5, each, count, AES_256_GCM, index, 2**40 + number).ljust(size, b"x")
            for each in range(count)
        ]
        b.sockets[0].inbox += [Flight(source, (b.addresses[0], b.port), each) for each in pieces]
        b.turn()

        assert len(inbound.units._layouts) <= LAYOUTS

    assert len(inbound.units._layouts) > 1
