from __future__ import annotations

import numpy as np
import pytest

from overlay.forwarding.in_band import MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, InBand
from overlay.forwarding.peer import Peer
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM
from tests.sim import World


@pytest.fixture
def pair():
    """Nodes with a session that have said hello."""
    world = World(ciphers=[AES_256_GCM])
    a, b = world.pair()
    a.send(b)
    world.run(1)
    a.send_super(b, 20_000)
    world.run(1)
    return a, b


def flood(a, count, payload=None):
    keypair = a.peer().keypairs.current
    for number in range(count):
        a.core.outbound.send_payload(a.peer(), keypair, payload or control.build(control.Pong(number)))


@pytest.fixture
def parsed(monkeypatch):
    """The messages that were read."""
    read, parse = [], control.parse

    def noted(payload):
        read.append(bytes(payload))
        return parse(payload)

    monkeypatch.setattr(control, "parse", noted)
    return read


@pytest.mark.parametrize("has_gro", [True, False])
@pytest.mark.parametrize(
    "payload",
    [
        None,
        b"\x92" + bytes(47),
        b"\x80" + bytes(63),
        control.build(control.Report(0, 0, 0, 0)).ljust(1000, b"\0"),
    ],
)
def test_messages_beyond_the_rate_are_counted_before_they_are_read(pair, parsed, has_gro, payload):
    a, b = pair
    a.world.has_gro = b.has_gro = has_gro

    flood(a, 1000, payload)
    a.world.run(0.1)

    assert b.drops["control_rate"] == 1000 - len(parsed)
    assert MESSAGES_AT_ONCE <= len(parsed) <= MESSAGES_AT_ONCE + 1


def test_permits_come_back(pair, parsed):
    a, b = pair
    flood(a, 1000)
    a.world.run(0.1)
    a.world.run(1)
    parsed.clear()
    b.peer().drops.clear()

    flood(a, 200)
    a.world.run(0.1)

    assert len(parsed) == 200
    assert b.drops["control_rate"] == 0


def test_the_flood_of_one_peer_costs_another_nothing(pair, parsed):
    a, b = pair
    c = a.world.node("c")
    b.know(c)
    c.know(b)
    c.send(b)
    a.world.run(1)
    c.send_super(b, 20_000)
    a.world.run(1)
    flood(a, 1000)
    a.world.run(0.02)
    parsed.clear()

    flood(c, 10)
    a.world.run(0.1)

    assert len(parsed) == 10


def test_packets_between_messages_of_a_flood_arrive(pair):
    a, b = pair
    b.received.clear()
    flood(a, 1000)
    sent = a.send(b, 20)
    flood(a, 1000)
    sent += a.send(b, 20)

    a.world.run(0.1)

    assert b.received == sent


@pytest.mark.parametrize(
    ("firsts", "kept"),
    [([0x92] * 300, MESSAGES_AT_ONCE), ([0x80] * 300, MESSAGES_AT_ONCE), ([0x92] * 299 + [0x45], 300)]
    + [([first] + [0x92] * 299, 300) for first in (0x7F, 0xA0, 0x00, 0x60)],
)
def test_only_a_batch_of_nothing_but_messages_is_shortened(firsts, kept):
    peer = Peer(1)

    rows = InBand.spare(peer, np.array(firsts, np.uint8), list(range(300)), 10.0)

    assert rows == list(range(kept))
    assert peer.drops["control_rate"] == 300 - kept


def test_the_rate_is_above_all_that_is_honest():
    assert MESSAGES_PER_SECOND >= 1000 + 100 + 25 + 1  # pings, probes, reports and hellos
