from __future__ import annotations

import socket

from overlay.wire.messages import TRANSPORT_HEADER
from tests.network import Flight
from tests.sim import World


def test_what_waits_in_a_socket_that_is_closed_is_read_first():
    world = World()
    a, b = world.pair()
    world.run(1)
    old = next(udp for udp in b.core.sender.sockets if udp.family == socket.AF_INET)
    b.open_sockets()
    world.run(1)
    for _ in range(3):
        old.raw.inbox.append(
            Flight(("192.0.2.1", a.port), ("192.0.2.2", b.port), TRANSPORT_HEADER.pack(4, 99, 0) + bytes(16))
        )

    b.core.handle_deadline(b.core._closes_at)

    assert old not in b.core.sender.sockets
    assert b.core.drops["unknown_index"] == 3
