"""Loss, reordering, suspend and clocks."""

from __future__ import annotations

import pytest

from tests.hypothesis_profiles import seeds
from tests.sim import World
from tests.two_nodes.stories.talking import connected, keep_talking


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(4))
def test_in_bad_weather_packets_are_neither_doubled_nor_damaged(seed):
    world = World(seed, has_gro=seed % 2 == 0)
    a, b = world.pair()
    net = world.network
    net.loss, net.reorder, net.duplicate = 0.1, 0.3, 0.1

    to_a, to_b = keep_talking(world, a, b, 300, step=0.5)

    for received, sent in ((a.received, to_a), (b.received, to_b)):
        assert len(set(received)) == len(received)
        assert set(received) <= set(sent)
        assert len(received) > 0.8 * len(sent)
    assert set(a.drops) | set(b.drops) <= {"replay", "unknown_index"}


@pytest.mark.parametrize("seed", seeds(4))
def test_super_packets_in_bad_weather_come_out_as_their_segments(seed):
    world = World(seed, has_gro=seed % 2 == 0)
    a, b = world.pair()
    connected(world, a, b)
    net = world.network
    net.loss, net.reorder, net.duplicate = 0.03, 0.05, 0.05
    sent = []
    for number in range(20):
        sent += a.send_super(b, 40_000, sequence=1 + number * 40_000, identifier=number * 1000)
        world.run(0.1)

    assert len(set(b.received)) == len(b.received)
    assert set(b.received) <= set(sent)
    assert len(b.received) > 0.9 * len(sent)


def test_a_suspend_of_an_hour_is_survived(world, pair):
    a, b = pair
    connected(world, a, b)
    world.sleep(3600)

    to_a, to_b = keep_talking(world, a, b, 10)

    assert (a.received, b.received) == (to_a, to_b)


def test_one_side_asleep_for_three_minutes_is_found_again(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: True
    for _ in range(180):
        a.send(b)
        world.run(1)
    world.network.lose = lambda flight: False
    world.run(6)
    a.received.clear()
    b.received.clear()

    to_a, to_b = keep_talking(world, a, b, 5)

    assert (a.received, b.received) == (to_a, to_b)


def test_a_wall_clock_that_is_set_back_does_not_stop_rekeying(world, pair):
    a, b = pair
    connected(world, a, b)
    world.clock.wall -= 10**9 * 3600

    to_a, to_b = keep_talking(world, a, b, 300)

    assert (a.received, b.received) == (to_a, to_b)


@pytest.mark.slow
def test_a_seeded_run_repeats_byte_for_byte():
    def story(seed):
        world = World(seed)
        a, b = world.pair()
        world.network.loss = world.network.reorder = 0.1
        keep_talking(world, a, b, 130)
        a.send_super(b, 30_000)
        world.run(1)
        return world.network.digest, a.received, b.received

    assert story(1) == story(1)
    assert story(1) != story(2)
