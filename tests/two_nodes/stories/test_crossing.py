"""Handshakes that both ends begin at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypothesis_profiles import examples, seeds
from tests.sim import World
from tests.two_nodes.stories.talking import connected, keep_talking, keypair_age


def test_both_ends_may_begin_at_once(world, pair):
    a, b = pair
    to_b, to_a = a.send(b, 5), b.send(a, 5)
    world.run(1)
    to_b += a.send(b, 5)
    to_a += b.send(a, 5)

    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)
    assert len(world.sent("initiation")) == 2


@pytest.mark.parametrize("seed", seeds(6))
def test_of_handshakes_that_crossed_one_is_kept_and_renewed_by_one_end(seed):
    world = World(seed)
    a, b = world.pair()

    to_a, to_b = keep_talking(world, a, b, 400)

    assert (a.received, b.received) == (to_a, to_b)
    assert len(world.sent("initiation")) == 2 + 3


@pytest.mark.parametrize("seed", seeds(4))
def test_handshakes_that_cross_leave_one_keypair_in_use_that_is_renewed_in_time(seed):
    world = World(seed)
    a, b = world.pair()
    a.want(1)
    b.want(1)
    world.run(1)

    to_a, to_b = keep_talking(world, a, b, 170)

    assert (a.received, b.received) == (to_a, to_b)
    assert {a.peer().keypairs.current.is_initiator, b.peer().keypairs.current.is_initiator} == {True, False}
    assert keypair_age(world, a) < 60


def crossing(seed, reorder):
    """Return a world and its two nodes after handshakes at nearly the same time, with occasionally slow agents."""
    chance = random.Random(seed)
    world = World(seed)
    a, b = world.pair()
    if chance.random() < 0.5:
        connected(world, a, b)
        world.run(6)
    world.network.delay, world.network.reorder = chance.choice([0.001, 0.01]), reorder
    events = [(chance.random() * 0.03, node, "want") for node in (a, b)]
    events += [
        (chance.random() * 0.06, node, "pause") for node in (a, b) for _ in range(chance.choice([0, 2, 4]))
    ]
    events += [
        (chance.random() * 0.06, node, "send") for node in (a, b) for _ in range(chance.choice([0, 2]))
    ]
    at = 0.0
    for when, node, what in sorted(events, key=lambda event: event[0]):
        world.run(when - at)
        at = when
        if what == "want":
            node.want(1)
        elif what == "pause":
            node.is_agent_busy = not node.is_agent_busy
        else:
            node.send(b if node is a else a)
    world.run(0.001)
    a.is_agent_busy = b.is_agent_busy = False
    for _ in range(10):
        a.send(b)
        b.send(a)
        world.run(0.02)
    world.run(1)
    a.received.clear()
    b.received.clear()
    to_b, to_a = a.send(b), b.send(a)
    world.run(1)
    assert (a.received, b.received) == (to_a, to_b)
    return world, a, b


def use_one_keypair(a, b):
    """Return whether both nodes send with the keypair of one handshake."""
    one, other = a.peer().keypairs.current, b.peer().keypairs.current
    return (one.local_index, one.remote_index) == (other.remote_index, other.local_index)


@examples(200)
@given(st.integers(0, 2**32))
def test_both_ends_use_one_keypair_after_handshakes_at_the_same_time_whatever_was_slow(seed):
    """Before, a keepalive that arrived before the answer was taken left each end with a keypair of its own."""
    _, a, b = crossing(seed, 0.0)

    assert use_one_keypair(a, b)
