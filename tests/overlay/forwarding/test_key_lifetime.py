"""When a keypair has expired, nothing is sealed or opened under it, however the packets arrive."""

from __future__ import annotations

import pytest

from overlay.forwarding.underlay.batching import PROBE
from overlay.session.constants import REJECT_AFTER_MESSAGES, Timing
from overlay.wire.bulk import CHACHA20_POLY1305
from tests.sim import World

REKEY_TIMEOUT = Timing().rekey_timeout


@pytest.fixture
def world():
    return World()


@pytest.fixture
def pair(world):
    return connect(world)


def connect(world):
    """Return nodes a and b with a session, of which a reads and b receives in batches."""
    a, b = world.pair()
    a.send(b)
    b.send(a)
    world.run(1)
    a.send(b, 3 * PROBE)
    world.run(2 * REKEY_TIMEOUT)  # the next handshake may start at once
    b.received.clear()
    return a, b


def current(node):
    return node.peer().keypairs.current


def data_sent(world, node, since):
    return sum(
        kind in {"data", "keepalive", "fragment"}
        for at, who, kind, _ in world.network.sent
        if who == node.name and at >= since
    )


SENDS = {
    "one packet": lambda a, b: a.send(b),
    "two packets": lambda a, b: a.send(b, 2),
    "eight alike": lambda a, b: a.send(b, 8),
    "eight of two sizes": lambda a, b: a.send(b, 4) + a.send(b, 4, size=200),
    "a super-packet": lambda a, b: a.send_super(b, 20_000),
}


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
@pytest.mark.parametrize("ciphers", [(), (CHACHA20_POLY1305,)], ids=["messages", "units"])
def test_nothing_is_sealed_from_reject_at_on(send, ciphers):
    world = World(ciphers=ciphers)
    a, b = connect(world)
    for _ in range(2):
        a.send_super(b, 20_000)
        world.run(1)
    old, now = current(a), world.clock.now
    old.reject_at = now
    counter = old.counter

    sent = send(a, b)
    b.received.clear()
    world.run(1)

    assert old.counter == counter
    assert current(a) is not old
    assert sorted(b.received) == sorted(sent)


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_everything_is_sealed_right_before_reject_at(world, pair, send):
    a, b = pair
    old = current(a)
    old.reject_at = world.clock.now + 0.001

    sent = send(a, b)
    world.run(0.1)

    assert current(a) is old
    assert sorted(b.received) == sorted(sent)


@pytest.mark.parametrize("left", range(10))
def test_packets_alike_use_the_counter_up_and_no_further(world, pair, left):
    a, b = pair
    old = current(a)
    old.counter = REJECT_AFTER_MESSAGES - left

    sent = a.send(b, 8)
    world.run(1)

    assert old.counter == min(REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES - left + 8)
    assert sorted(b.received) == sorted(sent)


def test_a_keepalive_uses_the_counter_up_and_no_further(world, pair):
    a, _ = pair
    since = world.clock.now
    keypair = current(a)
    keypair.counter = REJECT_AFTER_MESSAGES - 1

    for _ in range(3):
        a.core.outbound.send_payload(a.peer(), keypair, b"")

    assert keypair.counter == REJECT_AFTER_MESSAGES
    assert data_sent(world, a, since) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "at"])
def test_nothing_is_opened_from_reject_at_on(world, pair, count, is_late):
    a, b = pair
    sent = a.send(b, count)
    a.turn()
    keypair = current(b)
    keypair.reject_at = world.network.next_arrival() + (0.0 if is_late else 0.001)

    world.run(0.1)

    assert b.received == ([] if is_late else sent)
    assert b.drops == ({"keypair_expired": count} if is_late else {})


def test_a_unit_is_not_opened_from_reject_at_on():
    world = World(ciphers=(CHACHA20_POLY1305,))
    a, b = connect(world)
    for _ in range(2):
        a.send_super(b, 20_000)
        world.run(1)
    b.received.clear()
    units = a.peer().traffic.tx_units
    a.send_super(b, 20_000)
    a.turn()
    current(b).reject_at = world.network.next_arrival()

    world.run(0.1)

    assert a.peer().traffic.tx_units > units
    assert b.received == []
    assert set(b.drops) == {"keypair_expired"}
