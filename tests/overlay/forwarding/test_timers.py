from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.timers import OUT_OF_FORCE, Slots, Timers


def test_what_is_due_comes_out_once_and_in_order():
    timers, a, b = Timers(), LivePeer(1), LivePeer(2)
    timers.arm(3.0, a, "answer")
    timers.arm(1.0, b, "answer")
    timers.arm(2.0, a, "silence")

    assert timers.next_deadline() == 1.0
    assert list(timers.due(2.5)) == [(b, "answer"), (a, "silence")]
    assert list(timers.due(2.5)) == []
    assert list(timers.due(3.0)) == [(a, "answer")]
    assert timers.next_deadline() == math.inf


def test_an_entry_that_is_there_is_not_moved():
    timers, peer = Timers(), LivePeer(1)
    timers.arm(3.0, peer, "answer")
    timers.arm(1.0, peer, "answer")

    assert timers.next_deadline() == 3.0


def test_an_entry_may_be_replaced_by_an_earlier_or_a_later_one():
    timers, peer = Timers(), LivePeer(1)
    timers.arm(3.0, peer, "keepalive")
    timers.rearm(1.0, peer, "keepalive")
    timers.rearm(5.0, peer, "keepalive")

    assert timers.next_deadline() == 5.0
    assert list(timers.due(4.0)) == []
    assert list(timers.due(5.0)) == [(peer, "keepalive")]


def test_a_removed_peer_has_nothing_due():
    timers, a, b = Timers(), LivePeer(1), LivePeer(2)
    for peer in (a, b):
        timers.arm(1.0, peer, "answer")
        timers.arm(2.0, peer, "silence")

    timers.forget(a)

    assert list(timers.due(9.0)) == [(b, "answer"), (b, "silence")]


def test_an_entry_that_came_due_may_be_armed_again():
    timers, peer = Timers(), LivePeer(1)
    timers.arm(1.0, peer, "answer")
    assert list(timers.due(1.0)) == [(peer, "answer")]
    timers.arm(2.0, peer, "answer")

    assert list(timers.due(2.0)) == [(peer, "answer")]


@given(st.integers(0, 10_000))
def test_timers_do_what_their_twin_does(seed):
    chance, timers, twin = random.Random(seed), Timers(), {}
    peers = [LivePeer(number) for number in range(4)]
    now = 0.0
    for _ in range(100):
        peer, kind, at = chance.choice(peers), chance.choice(["a", "b"]), now + chance.randrange(20)
        step = chance.randrange(5)
        if step < 2:
            timers.arm(at, peer, kind)
            twin.setdefault((peer, kind), at)
        elif step == 2:
            timers.rearm(at, peer, kind)
            twin[peer, kind] = at
        elif step == 3 and not chance.randrange(4):
            timers.forget(peer)
            twin = {key: value for key, value in twin.items() if key[0] is not peer}
        else:
            now += chance.randrange(5)
            due = {key: when for key, when in twin.items() if when <= now}
            twin = {key: when for key, when in twin.items() if when > now}
            found = list(timers.due(now))
            assert set(found) == set(due)
            assert [due[key] for key in found] == sorted(due.values())
        assert timers.next_deadline() == min(twin.values(), default=math.inf)


def test_what_is_not_asked_for_stays_due():
    timers, peers = Timers(), [LivePeer(number) for number in range(5)]
    for peer in peers:
        timers.arm(1.0, peer, "keepalive")

    first = next(timers.due(1.0))

    assert first == (peers[0], "keepalive")
    assert list(timers.due(1.0)) == [(peer, "keepalive") for peer in peers[1:]]


def test_what_is_armed_for_now_meanwhile_is_left_for_the_next_call():
    timers, peer = Timers(), LivePeer(1)
    timers.arm(1.0, peer, "keepalive")

    for each, kind in timers.due(1.0):
        timers.arm(1.0, each, kind)

    assert timers.next_deadline() == 1.0


def test_thousands_of_entries_out_of_force_are_passed_over_a_few_at_a_time():
    timers, peer, count = Timers(), LivePeer(1), 20 * OUT_OF_FORCE
    for at in range(count):
        timers.rearm(at / count, peer, "path")

    calls = 0
    while timers.next_deadline() <= 1.0 and not (found := list(timers.due(1.0))):
        calls += 1

    assert found == [(peer, "path")]
    assert calls >= 5


def test_slots_follow_one_another_and_begin_anew_after_a_pause():
    slots = Slots(4)

    assert [slots.next(10.0) for _ in range(3)] == [10.0, 10.25, 10.5]
    assert slots.next(100.0) == 100.0
