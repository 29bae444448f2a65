from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.forwarding.path_mtu import CANDIDATES, LEAST, MAX_PROBES, STEP, PathMtu
from overlay.session.constants import Timing

quick = settings(deadline=None, derandomize=True, max_examples=200)
TIMING = Timing()


class Path:
    """A search, and a path that takes packets of up to *limit* bytes."""

    def __init__(self, most=1420, limit=1420, *, round_trip=0.02, loss=0.0, seed=0):
        self.search = PathMtu(most)
        self.limit, self.round_trip, self.loss = limit, round_trip, loss
        self.random = random.Random(seed)
        self.now, self.sent, self.is_flowing = 100.0, [], True
        self._answers = []

    def run(self, seconds):
        end = self.now + seconds
        while True:
            self.now = max(self.now, min(self.search.due, self._answers[0][0] if self._answers else math.inf))
            if self.now > end:
                break
            while self._answers and self._answers[0][0] <= self.now:
                self.search.answered(heapq.heappop(self._answers)[1], self.now)
            for probe in self.search.round(self.now, is_flowing=self.is_flowing):
                self.sent.append((self.now, probe.size))
                if probe.size <= self.limit and self.random.random() >= self.loss:
                    heapq.heappush(self._answers, (self.now + self.round_trip, probe.identifier))
        self.now = end


def fits(size, limit):
    """*size* is what a search may find on a path of *limit*: it passes, and no much larger one does."""
    return size <= limit < size + 2 * STEP


def test_a_path_that_takes_everything_costs_one_probe():
    path = Path()

    path.run(1)

    assert (path.search.size, path.search.is_confirmed) == (1420, True)
    assert [size for _, size in path.sent] == [1420]


@quick
@given(most=st.integers(1280, 9000), data=st.data())
def test_the_largest_size_that_passes_is_found(most, data):
    limit = data.draw(st.integers(LEAST, most))
    path = Path(most, limit)

    path.run(60)

    assert path.search.size == most if limit == most else fits(path.search.size, limit)
    assert path.search.is_confirmed


@quick
@given(most=st.integers(1280, 9000), data=st.data())
def test_a_size_stays_one_after_padding(most, data):
    path = Path(most, data.draw(st.integers(LEAST, most - 1)))

    path.run(60)

    assert path.search.size % STEP == 0


@quick
@given(limits=st.lists(st.integers(LEAST, 1420), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_path_that_changes_is_found_again_in_both_directions(limits, seed):
    path = Path(seed=seed, loss=0.05)

    for limit in limits:
        path.limit = limit
        path.run(4 * TIMING.path_raise_time)
    path.loss = 0.0
    path.run(2 * TIMING.path_raise_time)

    assert path.search.size == 1420 if path.limit == 1420 else fits(path.search.size, path.limit)


def test_a_black_hole_shows_within_seconds_after_traffic_had_passed():
    path = Path()
    path.run(20)
    path.limit = 1350

    path.run(TIMING.path_confirm_time + 5)

    assert path.search.size == 1344


def test_a_black_hole_at_the_start_shows_within_seconds():
    path = Path(limit=1300)

    path.run(5)

    assert fits(path.search.size, 1300)


def test_larger_sizes_are_tried_again_after_a_while():
    path = Path(limit=1300)
    path.run(20)
    path.limit = 1420

    path.run(TIMING.path_raise_time + 5)

    assert path.search.size == 1420


def test_a_peer_that_is_gone_teaches_nothing():
    path = Path()
    path.run(10)
    path.limit = 0

    path.run(600)

    assert path.search.size == 1420
    assert not path.search.is_confirmed


def test_a_peer_that_comes_back_is_known_again():
    path = Path(limit=1350)
    path.run(10)
    path.limit = 0
    path.run(100)
    path.limit = 1350

    path.run(60)

    assert (path.search.size, path.search.is_confirmed) == (1344, True)


@quick
@given(st.integers(0, 10_000))
def test_some_loss_is_not_taken_for_a_limit(seed):
    path = Path(loss=0.02, seed=seed)

    path.run(30)

    assert path.search.size == 1420


def test_nothing_is_probed_while_nothing_flows():
    path = Path()
    path.run(1)
    path.sent.clear()
    path.is_flowing = False

    path.run(600)

    assert path.sent == []


def test_a_search_begun_goes_on_although_nothing_flows():
    path = Path(limit=1300)
    path.run(0.5)
    path.is_flowing = False

    path.run(60)

    assert fits(path.search.size, 1300)


@pytest.mark.parametrize("round_trip", [0.0, 0.02, 0.3, 0.9])
def test_a_slow_path_is_not_taken_for_a_narrow_one(round_trip):
    path = Path(round_trip=round_trip)

    path.run(60)

    assert path.search.size == 1420


def test_a_round_trip_longer_than_patience_is_learnt_from_late_answers():
    path = Path(round_trip=2.5)

    path.run(120)

    assert (path.search.size, path.search.is_confirmed) == (1420, True)


def test_a_size_is_tried_three_times():
    path = Path(limit=1407)

    path.run(2.5)

    assert [size for _, size in path.sent].count(1408) <= MAX_PROBES
    assert [size for _, size in path.sent].count(1420) == MAX_PROBES


def test_another_path_is_searched_from_what_is_known():
    path = Path(limit=1300)
    path.run(10)
    known, path.limit = path.search.size, 1420
    path.search.restart(1420, path.now)
    assert path.search.size == known

    path.run(2)

    assert path.search.size == 1420


def test_another_mtu_of_the_tun_is_searched_for():
    path = Path(most=1420, limit=9000)
    path.run(10)

    path.search.restart(8920, path.now)
    assert path.search.size == 8920
    path.run(2)
    path.search.restart(1280, path.now)

    assert path.search.size == 1280


def test_where_this_host_cuts_datagrams_there_is_nothing_to_search():
    search = PathMtu(34736)
    (probe,) = search.round(0.0, is_flowing=True)

    search.refused(probe.identifier)

    assert (search.size, search.due) == (34736, math.inf)


def test_an_answer_that_nobody_waits_for_changes_nothing():
    search = PathMtu(1420)
    (probe,) = search.round(0.0, is_flowing=True)

    assert not search.answered(probe.identifier + 1, 0.1)
    assert search.answered(probe.identifier, 0.1)
    assert not search.answered(probe.identifier, 0.1)


def test_candidates_are_whole_steps():
    assert all(size % STEP == 0 for size in CANDIDATES)
