"""Messages between two agents inside the tunnel, passed on by their forwarders."""

from __future__ import annotations

import pytest

from overlay.link.messages import CONTROL_AT_ONCE, ControlReceived, SendControl
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM
from overlay.wire.control import Presence
from tests.sim import World

SAID = control.build(Presence(7, True, (0,)))


@pytest.fixture
def world():
    return World(ciphers=[AES_256_GCM])


@pytest.fixture
def pair(world):
    return world.pair()


def heard(node):
    return [report for report in node.reported if isinstance(report, ControlReceived)]


def test_peer_without_a_session_is_called_and_hears_the_next_message(world, pair):
    a, b = pair
    a.tell(SendControl([1], SAID))
    world.run(1)
    assert b.core.by_index
    assert heard(b) == []

    a.tell(SendControl([1], SAID))
    world.run(1)
    assert heard(b) == [ControlReceived(1, SAID)]


def test_message_asks_for_no_answer_and_its_sender_takes_nobody_for_silent(world, pair):
    a, b = pair
    a.send(b)
    world.run(30)
    before = b.peer().traffic.tx_bytes
    a.tell(SendControl([1], SAID))
    world.run(60)
    assert b.peer().traffic.tx_bytes == before
    assert not a.silent


def test_session_that_carries_messages_alone_gets_new_keys_in_time(world, pair):
    a, b = pair
    for _ in range(400):
        a.tell(SendControl([1], SAID))
        world.run(1)
    assert len(heard(b)) >= 398


def test_everybody_is_who_has_said_to_be_an_agent_and_others_are_asked(world, pair):
    a, b = pair
    a.tell(SendControl([], SAID))
    world.run(1)
    assert not a.core.by_index  # no peer is called

    a.send(b)
    world.run(1)
    a.tell(SendControl([], SAID))
    world.run(1)
    assert heard(b) == []  # a hello was sent instead
    a.tell(SendControl([], SAID))
    world.run(1)
    assert heard(b) == [ControlReceived(1, SAID)]


def test_peer_that_is_gone_and_one_without_an_endpoint_are_passed_over(world):
    a, b = world.pair(endpoint=False)
    a.tell(SendControl([1, 99], SAID))
    world.run(1)
    assert heard(b) == []
    assert not a.core.by_index


def test_messages_beyond_the_rate_are_counted_and_not_passed_on(world, pair):
    a, b = pair
    a.send(b)
    world.run(1)
    for _ in range(400):
        a.tell(SendControl([1], SAID))
    world.run(0.01)
    assert CONTROL_AT_ONCE <= len(heard(b)) < CONTROL_AT_ONCE + 5
    assert b.peer().drops["control_rate"] == 400 - len(heard(b))
