"""Transfers with an end that restarts."""

from __future__ import annotations

import pytest

from tests.two_nodes.units.streams import BOTH, Stream, are_units_in_use, connected, forget, kinds, missing


def test_a_restart_of_the_sender_costs_no_more_than_what_it_held(world, pair):
    a, b = pair
    connected(world, a, b)
    Stream(world, a, b).go_on(0.5)
    a.restart()
    forget(a, b)
    stream = Stream(world, a, b)

    stream.go_on(1)
    world.run(1)

    assert b.received == stream.sent
    assert are_units_in_use(a)


def test_a_restart_of_the_receiver_that_calls_is_over_at_once(world, pair):
    a, b = pair
    connected(world, a, b)
    stream = Stream(world, a, b)
    stream.go_on(0.5)
    b.restart()
    b.want(1)
    stream.go_on(0.1)
    forget(a, b)

    sent = stream.go_on(1)
    world.run(1)

    assert missing(sent, b.received) == {}
    assert are_units_in_use(a)


def test_a_restart_of_a_receiver_that_does_not_call_is_over_within_2_seconds(world, pair):
    a, b = pair
    connected(world, a, b)
    stream = Stream(world, a, b)
    world.run(5)
    stream.go_on(0.5)
    b.restart()
    stream.go_on(1)
    forget(a, b)

    sent = stream.go_on(1)
    world.run(1)

    assert missing(sent, b.received) == {}
    assert are_units_in_use(a)


def test_a_peer_that_becomes_plain_and_back_loses_less_than_2_seconds(world, pair):
    a, b = pair
    stream = Stream(world, a, b)
    for ciphers in ([], BOTH):
        stream.go_on(6, every=0.05)
        b.ciphers = ciphers
        b.restart()
        if ciphers:
            b.want(1)  # as our agent does when it starts
        stream.go_on(2, every=0.05)
        forget(a, b)

        sent = stream.go_on(1)
        world.run(1)

        assert missing(sent, b.received) == {}
        assert ("fragment" in kinds(world)) == bool(ciphers)


def test_a_peer_that_is_gone_is_called_although_nothing_more_is_sent(world, pair):
    a, b = pair
    Stream(world, a, b).go_on(0.3)
    world.run(5)
    b.restart()
    start = world.clock.now
    a.send_super(b, 20_000)

    world.run(1)

    assert world.sent("initiation", "a", since=start) == [pytest.approx(start + 0.4)]


def test_a_peer_that_is_heard_is_not_called_although_its_reports_are_missing(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.lose = lambda flight: flight.kind == "fragment"
    stream = Stream(world, a, b)
    for _ in range(100):
        stream.go_on(0.05, every=0.05)
        b.send(a)

    assert len(world.sent("initiation")) == 0
