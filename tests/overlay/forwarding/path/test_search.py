from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.path.search import (
    CANDIDATES,
    LEAST,
    MAX_PROBES,
    SHORTEST_WAIT,
    SILENT_ROUNDS,
    STEP,
    PathMtu,
)
from overlay.session.constants import Timing
from tests.hypothesis_profiles import examples

TIMING = Timing()
STEPS = 3000  # in one life of a path, at most


class Path:
    """A search, and a path that passes packets of up to *limit* bytes."""

    def __init__(self, most=1420, limit=1420, *, round_trip=0.02, loss=0.0, seed=0):
        self.search = PathMtu(most)
        self.limit, self.round_trip, self.loss = limit, round_trip, loss
        self.random = random.Random(seed)
        self.now, self.sent, self.is_flowing = 100.0, [], True
        self._answers = []

    def run(self, seconds):
        end = self.now + seconds
        for _ in range(STEPS):
            self.now = max(self.now, min(self.search.due, self._answers[0][0] if self._answers else math.inf))
            if self.now > end:
                break
            while self._answers and self._answers[0][0] <= self.now:
                self.search.answered(heapq.heappop(self._answers)[1], self.now)
            for probe in self.search.round(self.now, is_flowing=self.is_flowing):
                self.sent.append((self.now, probe.size))
                if probe.size <= self.limit and self.random.random() >= self.loss:
                    heapq.heappush(self._answers, (self.now + self.round_trip, probe.identifier))
        else:
            pytest.fail("it is looked again and again")
        self.now = end


def fits(size, limit):
    """*size* is a valid result for a path with *limit*: it passes, and no much larger size does."""
    return size <= limit < size + 2 * STEP


# Some one below a multiple of STEP, and others
@pytest.mark.parametrize("most", [1407, 1420, 1423, 1424])
def test_a_path_that_takes_everything_costs_one_probe_and_one_now_and_then(most):
    path = Path(most, most)

    path.run(1)
    assert (path.search.size, path.search.is_confirmed) == (most, True)
    assert [size for _, size in path.sent] == [most]
    path.run(10 * TIMING.path_confirm_time)

    assert [size for _, size in path.sent] == [most] * 11


@examples(200)
@given(most=st.integers(1280, 9000), data=st.data())
def test_the_largest_size_that_passes_is_found(most, data):
    limit = data.draw(st.integers(LEAST, most))
    path = Path(most, limit)

    path.run(60)

    assert path.search.size == most if limit == most else fits(path.search.size, limit)
    assert path.search.is_confirmed
    assert all(type(size) is int and LEAST <= size <= most for _, size in path.sent)


@examples(200)
@given(most=st.integers(1280, 9000), data=st.data())
def test_a_size_stays_one_after_padding(most, data):
    path = Path(most, data.draw(st.integers(LEAST, most - 1)))

    path.run(60)

    assert path.search.size % STEP == 0


@examples(200)
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


def test_a_peer_that_never_answers_is_probed_in_five_rounds_and_teaches_nothing():
    path = Path(limit=0)
    assert not path.search.is_confirmed

    path.run(SILENT_ROUNDS * TIMING.path_probe_time)

    assert len({when for when, _ in path.sent}) == SILENT_ROUNDS
    assert (path.search.size, path.search.is_confirmed) == (1420, False)
    assert path.search.due == pytest.approx(path.now + TIMING.path_confirm_time)


def test_a_peer_that_is_gone_is_sent_small_probes_only_until_it_answers_or_has_another_path():
    path = Path(limit=0)
    path.run(SILENT_ROUNDS * TIMING.path_probe_time)
    path.sent.clear()

    path.run(60)
    assert {size for _, size in path.sent} == {LEAST}
    path.limit = 1300
    path.run(10)
    assert fits(path.search.size, 1300)

    path.limit = 0
    path.run(60)
    path.sent.clear()
    path.search.restart(1420, path.now)
    path.run(0)

    assert 1420 in {size for _, size in path.sent}


def test_another_path_that_answers_nothing_teaches_nothing():
    path = Path()
    path.run(10)
    path.limit = 0

    path.search.restart(1420, path.now)
    assert not path.search.is_confirmed
    path.run(60)

    assert (path.search.size, path.search.is_confirmed) == (1420, False)


def test_of_a_peer_that_answers_only_the_fifth_round_no_less_is_found():
    path = Path(limit=0)
    path.run((SILENT_ROUNDS - 1.5) * TIMING.path_probe_time)
    path.limit = 1330

    path.run(10)

    assert path.search.size == 1328


def test_a_peer_that_comes_back_is_known_again():
    path = Path(limit=1350)
    path.run(10)
    path.limit = 0
    path.run(100)
    path.limit = 1350

    path.run(60)

    assert (path.search.size, path.search.is_confirmed) == (1344, True)


@examples(200)
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


def test_without_packets_it_is_looked_again_after_the_time_of_a_confirmation():
    search = PathMtu(1420)

    assert search.round(100.0, is_flowing=False) == []
    assert search.due == 100.0 + TIMING.path_confirm_time
    (probe,) = search.round(search.due, is_flowing=True)
    search.answered(probe.identifier, search.due)
    search.round(search.due, is_flowing=True)
    at = search.due
    assert search.round(at, is_flowing=False) == []
    assert search.due == at + TIMING.path_confirm_time


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


class Rounds:
    """The rounds of a search, answered by hand."""

    def __init__(self, most=1420):
        self.search = PathMtu(most)
        self.search.due = 0.0
        self.asked = {}

    def next(self):
        """Send the probes that are due, and return when that was; ``asked`` has their identifiers by size."""
        now = self.search.due
        self.asked = {probe.size: probe.identifier for probe in self.search.round(now, is_flowing=True)}
        return now

    def answer(self, now, *sizes):
        for size in sizes:
            assert self.search.answered(self.asked[size], now)


def test_a_round_waits_for_three_round_trips():
    rounds = Rounds()
    first = rounds.next()
    second = rounds.next()
    assert second == first + TIMING.path_probe_time

    rounds.answer(second + 0.5, LEAST)
    assert rounds.search.due == second + TIMING.path_probe_time  # no longer than otherwise
    rounds.answer(second + 0.25, 1200)

    third = rounds.next()
    assert rounds.search.due == third + 3 * (0.75 * 0.5 + 0.25 * 0.25)


def test_a_round_on_a_quick_path_waits_for_a_moment():
    rounds = Rounds()
    rounds.next()
    second = rounds.next()

    rounds.answer(second, LEAST)
    rounds.answer(second + 0.015625, 1200)

    assert rounds.search.due == second + SHORTEST_WAIT


def test_a_round_is_over_when_the_last_of_its_probes_is_answered():
    rounds = Rounds()
    rounds.next()
    rounds.next()

    *others, last = rounds.asked
    rounds.answer(1.25, *others)
    assert rounds.search.due > 1.25
    rounds.answer(1.25, last)

    assert rounds.search.due == 1.25


def test_the_size_stays_while_a_search_goes_on():
    rounds = Rounds()
    rounds.next()
    rounds.next()

    rounds.answer(1.25, LEAST, 1200)

    assert (rounds.search.size, rounds.search.is_confirmed) == (1420, False)


@pytest.mark.parametrize("sizes", [(1280,), (1280, 1312), (1312,)])
@pytest.mark.parametrize("most", [1420, 1423])
def test_an_answer_that_was_only_late_opens_what_its_absence_had_closed(most, sizes):
    rounds = Rounds(most)
    rounds.next()
    late = {}
    for _ in range(MAX_PROBES):
        rounds.next()
        late = late or rounds.asked
        if 1200 in rounds.asked:
            rounds.answer(rounds.search.due - 0.5, LEAST, 1200)
    rounds.next()
    assert rounds.search.size == 1200
    assert max(rounds.asked) < 1280

    for size in sizes:
        rounds.search.answered(late[size], rounds.search.due)
    seen = set()
    for _ in range(4):
        at = rounds.next()
        rounds.answer(at + 0.01, *rounds.asked)
        seen |= rounds.asked.keys()

    assert (rounds.search.size, max(seen)) == (most, most)


def test_a_size_that_this_hosts_device_refuses_is_not_tried_again():
    rounds = Rounds()
    rounds.next()
    rounds.next()

    rounds.search.refused(rounds.asked[1376])
    rounds.answer(rounds.search.due - 0.5, LEAST, 1200, 1280, 1312, 1344)
    rounds.next()

    assert rounds.search.size == 1344
    assert set(rounds.asked) == {1360}


def test_larger_sizes_are_tried_again_exactly_when_it_is_time():
    path = Path(limit=1300, round_trip=0.125)
    for _ in range(200):
        path.run(0.125)
        if path.search.due - path.now == TIMING.path_confirm_time:  # it has just settled
            break
    path.is_flowing = False
    path.run(TIMING.path_raise_time - 0.125)
    path.is_flowing = True
    path.sent.clear()

    path.run(0.125)

    assert path.sent == [(path.now, 1420)]


def test_identifiers_are_numbers_that_a_message_has_room_for():
    path = Path(limit=1300)
    identifiers = []
    take, path.search.answered = (
        path.search.answered,
        lambda *given: identifiers.append(given[0]) or take(*given),
    )

    path.run(30)

    assert len(set(identifiers)) == len(identifiers) > 5
    assert all(0 <= each < 2**32 for each in identifiers)


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


def test_nothing_larger_than_the_tun_s_mtu_is_probed_in_any_search():
    path = Path(most=1500, limit=1300)
    path.run(10)

    path.search.restart(1423, path.now)  # the next multiple of STEP is one too many
    path.sent.clear()
    path.run(10)
    path.limit = 9000
    path.run(2 * TIMING.path_raise_time)
    path.search.restart(1423, path.now)
    path.run(10)

    assert path.search.size == max(size for _, size in path.sent) == 1423


def test_where_this_host_cuts_datagrams_there_is_nothing_to_search():
    search = PathMtu(34736)
    (probe,) = search.round(0.0, is_flowing=True)

    search.refused(probe.identifier)

    assert (search.size, search.is_confirmed, search.due) == (34736, False, math.inf)
    assert not search.answered(probe.identifier, 0.1)


def test_a_refusal_of_what_was_not_asked_changes_nothing():
    search = PathMtu(1420)
    (probe,) = search.round(0.0, is_flowing=True)

    search.refused(probe.identifier + 1)

    assert search.answered(probe.identifier, 0.1)
    assert (search.size, search.is_confirmed) == (1420, True)


def test_an_answer_that_nobody_waits_for_changes_nothing():
    search = PathMtu(1420)
    (probe,) = search.round(0.0, is_flowing=True)

    assert not search.answered(probe.identifier + 1, 0.1)
    assert search.answered(probe.identifier, 0.1)
    assert not search.answered(probe.identifier, 0.1)


def test_candidates_are_whole_steps():
    assert all(size % STEP == 0 for size in CANDIDATES)
