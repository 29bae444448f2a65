"""Units, control messages and the timers of a session; the wiping of keys."""

from __future__ import annotations

import pytest

from overlay.session.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from overlay.wire.bulk import AES_BLOCKS_PER_KEY
from tests.two_nodes.units.streams import RTT, Stream, are_units_in_use, connected, forget, kinds, missing

# Control messages and the timers


def test_reports_under_old_keys_ask_for_no_new_ones(world, pair):
    a, b = pair
    connected(world, b, a)  # b is the initiator, which renews keys
    assert b.peer().keypairs.current.is_initiator
    world.run(130)
    forget(a, b)
    before = b.peer().traffic.rx_units

    for _ in range(8):
        a.send_super(b, 20_000)
        world.run(1)

    probes = sum((who, kind, size) == ("a", "data", a.mtu + 32) for _, who, kind, size in world.network.sent)
    assert kinds(world, "b") == {"data": 8 + probes}
    assert b.peer().traffic.rx_units - before == 8


def test_control_messages_stop_with_the_data(world, pair):
    a, b = pair
    Stream(world, a, b).go_on(3)
    world.run(11)
    assert kinds(world, "b")["keepalive"] == 1
    world.network.sent.clear()

    world.run(600)

    assert world.network.sent == []


def test_units_alone_are_owed_an_answer_as_data_is(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(30)
    world.network.sent.clear()
    start = world.clock.now
    a.send_super(b, 20_000)

    world.run(30)

    assert world.sent("keepalive", "b") == [pytest.approx(start + RTT / 2 + 10)]


def test_a_stream_of_units_renews_its_keypair_after_120_seconds(world, pair):
    a, b = pair
    stream = Stream(world, a, b)

    stream.go_on(130, every=0.5, size=5000)

    assert len(world.sent("initiation")) == 2
    assert missing(stream.sent, b.received) == {}
    assert are_units_in_use(a)


def test_units_without_an_answer_make_a_new_handshake_as_data_does(world, pair):
    a, b = pair
    connected(world, a, b)
    world.run(5)
    start = world.clock.now
    a.send_super(b, 20_000)
    world.run(RTT + 0.05)
    world.network.lose = lambda flight: flight.source[0] in b.addresses
    a.peer().keypairs.current.bulk.size.is_plain = True
    a.send_super(b, 20_000)

    world.run(17)

    assert world.sent("initiation", "a", since=start) == [pytest.approx(start + 15.2, abs=0.25)]


@pytest.mark.parametrize("counter", ["messages", "units"])
def test_messages_and_units_count_for_the_limit_after_which_keys_are_renewed(world, pair, counter):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    if counter == "messages":
        keypair.counter = REKEY_AFTER_MESSAGES
    else:
        keypair.bulk.key.counter = REKEY_AFTER_MESSAGES

    world.run(5)
    sent = a.send_super(b, 20_000)
    world.run(1)

    assert b.received == sent
    assert len(world.sent("initiation", "a")) == 1
    assert a.peer().keypairs.current is not keypair


def test_a_key_that_has_sealed_all_it_may_is_replaced_and_messages_go_meanwhile(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    keypair.bulk.key.blocks = AES_BLOCKS_PER_KEY
    world.run(5)
    stream = Stream(world, a, b)

    stream.go_on(0.3)
    world.run(1)

    assert b.received == stream.sent
    assert a.peer().keypairs.current is not keypair
    assert are_units_in_use(a)


@pytest.mark.parametrize("spent", [{"blocks": AES_BLOCKS_PER_KEY}, {"counter": REJECT_AFTER_MESSAGES - 3}])
def test_a_key_that_has_sealed_all_it_may_seals_no_more(world, pair, spent):
    a, b = pair
    connected(world, a, b)
    world.run(5)
    forget(a, b)
    key = a.peer().keypairs.current.bulk.key
    for name, value in spent.items():
        setattr(key, name, value)
    world.network.lose = lambda flight: flight.kind == "initiation"

    sent = a.send_super(b, 20_000)
    world.run(1)

    assert b.received == sent
    assert kinds(world, "a") == {"initiation": 1, "data": len(sent)}


def test_counters_of_units_end_before_those_that_are_refused(world, pair):
    a, b = pair
    connected(world, a, b)
    keypair = a.peer().keypairs.current
    keypair.bulk.key.counter = REJECT_AFTER_MESSAGES - 3
    world.run(5)
    stream = Stream(world, a, b)

    stream.go_on(0.3)
    world.run(1)

    assert b.received == stream.sent
    assert a.peer().keypairs.current is not keypair


# Wiping


def test_unit_keys_go_with_their_keypair(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send_super(b, 20_000)

    world.run(545)

    assert a.core.by_index == b.core.by_index == {}
    assert a.peer().keypairs.current is a.peer().contact.reporting is None
