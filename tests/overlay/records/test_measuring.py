"""When a sample is taken, and who is pinged for it: those that carry packets, a bounded number of them,
and nobody else.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
import trio.testing

from overlay.host import clock
from overlay.link.messages import PeerCounters, Ponged
from overlay.records.history import INTERVAL, History
from overlay.records.measuring import PING_TIMEOUT, PINGED, PINGED_AT_ONCE, PINGS, Measuring
from overlay.supervision.counters import Counted
from overlay.supervision.forwarder import ForwarderGoneError


class Node:
    """A node whose peers carry a packet each way in each interval, unless they are *quiet*."""

    def __init__(self, count):
        self.history = History()
        remotes = [
            SimpleNamespace(number=number, round_trip=None, shaken_at=0.0) for number in range(1, count + 1)
        ]
        self.roster = SimpleNamespace(by_number={each.number: each for each in remotes})
        self.supervisor = SimpleNamespace(forwarder=object(), ping=self._ping)
        self.quiet, self.carried = set(), dict.fromkeys(self.roster.by_number, 0)
        self.is_hung = False
        self.pinged, self.waiting, self.most = [], 0, 0
        self.answer = lambda number: 0.02

    async def count(self):
        await trio.sleep(0)
        if self.is_hung:
            return Counted()
        for number in self.carried.keys() - self.quiet:
            self.carried[number] += 1
        rows = {
            number: PeerCounters(number, None, count, count, count, count, 0.0, {})
            for number, count in self.carried.items()
        }
        return Counted(rows, is_complete=True)

    async def _ping(self, number, timeout):
        self.pinged.append(number)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            seconds = self.answer(number)
            if isinstance(seconds, Exception):
                raise seconds
            if seconds == "lost":
                await trio.sleep(timeout)
                return None
            await trio.sleep(seconds or 0)
            return Ponged(number, 0, seconds)
        finally:
            self.waiting -= 1

    def told(self, name, number=1):
        return self.history.row(number, range(self.history.taken))[name]


def run(node, samples, before=lambda turn: None):
    async def main():
        measuring = Measuring(node)
        for turn in range(samples):
            before(turn)
            await measuring.sample()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


@pytest.fixture(autouse=True)
def boottime(monkeypatch):
    """Let the clock of the node be the story's, ten seconds later at each look: it is read once per sample."""
    times = iter(range(1000, 100_000, int(INTERVAL)))
    monkeypatch.setattr(clock, "now", lambda: float(next(times)))


def test_a_peer_that_carries_packets_is_pinged_a_few_times_and_one_that_does_not_never_is():
    node = Node(2)
    node.quiet = {2}

    run(node, 3)

    assert node.pinged == [1] * PINGS * 2  # the first sample does not know of any traffic
    assert node.told("round_trip_seconds") == [None, 0.02, 0.02]
    assert node.told("loss_ratio") == [None, 0.0, 0.0]
    assert node.told("loss_ratio", 2) == [None, None, None]


def test_one_that_falls_quiet_is_left_alone():
    node = Node(1)

    run(node, 4, lambda turn: node.quiet.update({1} if turn > 1 else ()))

    assert node.pinged == [1] * PINGS


def test_pings_that_are_lost_are_the_loss():
    node = Node(1)
    answers = iter(["lost", 0.03, 0.01, "lost", "lost", "lost"])
    node.answer = lambda number: next(answers)

    run(node, 3)

    assert node.told("loss_ratio") == [None, 0.3333, 1.0]
    assert node.told("round_trip_seconds") == [None, 0.02, None]


@pytest.mark.parametrize("answer", [None, ForwarderGoneError()])
def test_a_peer_that_answers_no_pings_is_asked_once_and_its_loss_is_not_known(answer):
    node = Node(1)
    node.answer = lambda number: answer

    run(node, 2)

    assert node.pinged == [1]
    assert node.told("loss_ratio") == [None, None]


def test_a_handshake_tells_the_round_trip_once_where_no_ping_does():
    node = Node(1)
    node.answer = lambda number: None
    remote = node.roster.by_number[1]

    def shake(turn):
        if turn == 1:
            remote.round_trip, remote.shaken_at = 0.5, 1015.0

    run(node, 4, shake)

    assert node.told("round_trip_seconds") == [None, 0.5, None, None]
    assert node.history.measured_by(1) == "handshake"


def test_of_many_peers_some_are_pinged_in_each_sample_and_each_in_its_turn():
    node = Node(3 * PINGED)

    run(node, 4)

    assert sorted(set(node.pinged)) == list(node.roster.by_number)
    assert len(node.pinged) == 3 * PINGED * PINGS
    assert node.most <= PINGED_AT_ONCE * PINGS


def test_a_sample_is_over_before_the_next_even_where_all_pings_are_lost():
    node = Node(PINGED)
    node.answer = lambda number: "lost"
    took = []

    async def main():
        measuring = Measuring(node)
        for _ in range(2):
            began = trio.current_time()
            await measuring.sample()
            took.append(trio.current_time() - began)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)

    assert PING_TIMEOUT < took[1] < INTERVAL


def test_a_forwarder_that_tells_nothing_leaves_a_sample_in_which_nothing_is_known():
    node = Node(1)

    run(node, 4, lambda turn: setattr(node, "is_hung", turn == 2))

    assert node.told("sent_bytes_per_second") == [None, 0.1, None, 0.1]
    assert len(node.history.times()) == 4


def test_samples_are_taken_at_an_even_pace():
    node = Node(1)

    async def main():
        with trio.move_on_after(3.5 * INTERVAL):
            await Measuring(node).run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)

    assert node.history.taken == 4
