from __future__ import annotations

import pytest

from overlay.provisioning.relocations import (
    LONGEST_PAUSE,
    QUESTIONS_AT_ONCE,
    QUIET_TIME,
    REPLAN_PAUSE,
    Relocations,
)
from overlay.roster import Remote
from overlay.troubles.whereabouts import QUESTIONS
from tests.peers.examples import peer

NOW = 1000.0


class Host:
    """Records what it is asked, and is affected by some places."""

    def __init__(self):
        self.asked, self.affecting, self.plans = [], set(), 0
        self.relocations = Relocations(self.ask, self.want)

    def ask(self, name, endpoint):
        self.asked.append((name, endpoint))
        return endpoint in self.affecting

    def want(self):
        self.plans += 1

    def move(self, remote, endpoint, now=NOW, *, is_planning=False):
        remote.endpoint = endpoint
        self.relocations.moved(remote, now, is_planning=is_planning)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def tokyo():
    return Remote(1, peer("tokyo"), None)


def place(number):
    return "192.0.2.1", number


def test_a_place_that_affects_the_host_asks_for_a_plan_and_another_does_not(host, tokyo):
    host.affecting.add(place(2))

    host.move(tokyo, place(1))
    assert host.plans == 0
    host.move(tokyo, place(2))
    assert host.plans == 1


def test_while_a_plan_is_due_nothing_is_asked(host, tokyo):
    host.affecting.add(place(1))
    for number in range(1, 100):
        host.move(tokyo, place(number))

    assert (host.plans, host.asked) == (1, [("tokyo", place(1))])


def test_a_peer_that_moves_without_end_is_asked_about_some_times_and_then_once_a_second(host, tokyo):
    moves = iter(range(1_000_000))
    for second in range(10):
        for _ in range(10_000):
            host.move(tokyo, place(next(moves)), NOW + second)
        host.relocations.turn(NOW + second + 0.9)

    assert len(host.asked) <= QUESTIONS + 10
    assert host.asked[-1][1] in {place(99_999), place(90_000)}


def test_the_last_place_of_a_peer_that_was_put_off_is_asked_about(host, tokyo):
    for number in range(QUESTIONS + 5):
        host.move(tokyo, place(number))
    host.affecting.add(tokyo.endpoint)

    host.relocations.turn(NOW + 1)

    assert (host.asked[-1], host.plans) == (("tokyo", place(QUESTIONS + 4)), 1)


def test_peers_that_were_put_off_are_asked_about_in_pieces(host):
    remotes = [Remote(number, peer(f"p{number}"), None) for number in range(1, 1001)]
    for remote in remotes:
        for number in range(QUESTIONS + 1):
            host.move(remote, place(number))
    before = len(host.asked)

    counts = []
    for second in range(1, 8):
        host.relocations.turn(NOW + second)
        counts.append(len(host.asked) - before)

    assert counts == [200, 400, 600, 800, 1000, 1000, 1000]
    assert QUESTIONS_AT_ONCE == 200


def test_a_peer_that_moved_while_a_plan_was_computed_is_asked_about_when_it_is_in_force(host, tokyo):
    host.relocations.begin()
    host.move(tokyo, place(1), is_planning=True)
    host.affecting.add(place(1))

    host.relocations.end()
    assert host.plans == 1
    host.relocations.plan(NOW)
    host.relocations.end()
    assert host.plans == 1


def test_very_many_that_moved_meanwhile_are_asked_about_in_pieces(host):
    host.relocations.begin()
    for number in range(1, 1001):
        host.move(Remote(number, peer(f"p{number}"), None), place(number), is_planning=True)
    host.asked.clear()

    host.relocations.end()

    assert len(host.asked) == QUESTIONS_AT_ONCE


def test_plans_in_a_row_come_ever_more_rarely_and_after_a_quiet_while_at_once(host):
    now, pauses = NOW, []
    for _ in range(10):
        pauses.append(host.relocations.pause(now))
        now += pauses[-1]
        host.relocations.plan(now)

    assert pauses[:3] == pytest.approx([REPLAN_PAUSE, 2 * REPLAN_PAUSE, 4 * REPLAN_PAUSE])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE)
    assert host.relocations.pause(now + QUIET_TIME) == REPLAN_PAUSE


def test_a_peer_without_an_endpoint_is_not_asked_about(host, tokyo):
    host.move(tokyo, None)

    assert host.asked == []
