from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding.underlay.replaced import LAST_READS, read_out
from overlay.wire.ip import PROTOCOL_UDP
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

    b.core.handle_deadline(b.core.sender.closes_at)

    assert old not in b.core.sender.sockets
    assert b.core.drops["unknown_index"] == 3


class Source:
    """A socket with that many batches, of which drain() takes one."""

    def __init__(self, batches):
        self.batches, self.asked = batches, []

    def drain(self, udp, now):
        self.asked.append((udp, now))
        self.batches -= 1
        return self.batches > 0


@pytest.mark.parametrize(("batches", "taken"), [(1, 1), (3, 3), (LAST_READS, LAST_READS), (1000, LAST_READS)])
@pytest.mark.parametrize("role", [Role.ALL, Role.RECEIVES, Role.HANDSHAKES])
def test_a_socket_is_read_until_it_is_empty_and_not_for_ever(role, batches, taken):
    source, udp = Source(batches), SimpleNamespace(protocol=PROTOCOL_UDP, role=role)

    read_out(source, udp, 7.0)

    assert source.asked == [(udp, 7.0)] * taken


@pytest.mark.parametrize(
    ("protocol", "role"), [(PROTOCOL_UDP, Role.SENDS), (47, Role.RECEIVES), (4, Role.SENDS)]
)
def test_sockets_that_only_send_and_raw_ones_are_not_read(protocol, role):
    source = Source(3)

    read_out(source, SimpleNamespace(protocol=protocol, role=role), 7.0)

    assert source.asked == []
