from __future__ import annotations

import heapq
import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.forwarding.unit_size import FIRST, SMALLEST, WHOLE, UnitSize
from overlay.wire.control import Report


class Path:
    """A sender that always has data, a path that loses datagrams, and a receiver that reports."""

    def __init__(self, loss=0.0, *, round_trip=0.02, every=0.005, seed=1, first=WHOLE):
        self.loss, self.round_trip, self.every = loss, round_trip, every
        self.size, self.random, self.now = UnitSize(first), random.Random(seed), 100.0
        self.passes = lambda segments: all(self.random.random() >= self.loss for _ in range(segments))
        self.counter = self.newest = self.units = self.reported = 0
        self.history = []  # (time, segments of the unit or 0)
        self.silences = []
        self._events, self._order = [], 0
        self._report_due = math.inf
        self._at(self.now, "send")

    def _at(self, when, what, data=None):
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what, data))

    def run(self, seconds):
        end = self.now + seconds
        while True:
            due = self.size.silence_due()
            if self._events and self._events[0][0] <= min(due, end):
                self.now, _, what, data = heapq.heappop(self._events)
                getattr(self, "_" + what)(data)
            elif due <= end:
                self.now = due
                self.size.silence(due)
                self.silences.append(due)
            else:
                break
        self.now = end
        return self

    def _send(self, _):
        segments = self.size.allowed(self.now)
        self.history.append((self.now, segments))
        if segments:
            self.size.sent(self.counter, self.now)
            if self.passes(segments):
                self._at(self.now + self.round_trip / 2, "arrive", self.counter)
            self.counter += 1
        self._at(self.now + self.every, "send")

    def _arrive(self, counter):
        self.newest, self.units = max(self.newest, counter + 1), self.units + 1
        if self.reported != -1:
            self.reported = -1
            self._at(self.now + 0.04, "report")

    def _report(self, _):
        self.reported = 0
        self._at(self.now + self.round_trip / 2, "hear", Report(self.newest, self.units, 0, 0))

    def _hear(self, report):
        self.size.reported(report, self.now)

    def units_since(self, when):
        """Return when units were sent after *when*."""
        return [at for at, segments in self.history if segments and at > when]

    def share_of_units(self, seconds):
        recent = [segments for at, segments in self.history if at > self.now - seconds]
        return sum(segments > 0 for segments in recent) / len(recent)


@pytest.mark.parametrize("round_trip", [0.0001, 0.02, 0.1])
def test_units_are_small_to_begin_with_and_whole_soon_where_nothing_is_lost(round_trip):
    path = Path(round_trip=round_trip, first=FIRST).run(30)

    assert path.history[0][1] == FIRST
    assert {segments for at, segments in path.history if at > 100.5} == {WHOLE}


def test_the_first_loss_ends_the_quick_growth():
    path = Path(first=FIRST)
    path.passes = lambda _: path.counter != 1
    path.run(0.5)

    assert path.size.limit == FIRST


def test_units_stay_whole_where_nothing_is_lost():
    path = Path().run(30)

    assert {segments for _, segments in path.history} == {WHOLE}


# Quickly down


@pytest.mark.parametrize("round_trip", [0.0001, 0.02, 0.1])
def test_units_are_halved_at_least_half_a_second_after_losses_begin(round_trip):
    path = Path(round_trip=round_trip).run(5)
    path.loss = 0.005

    path.run(0.5)

    assert path.size.limit <= WHOLE // 2 or path.size.is_plain


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0001, 40, 64), (0.0005, 8, 32), (0.001, 6, 16)])
@pytest.mark.parametrize("round_trip", [0.0001, 0.02, 0.1])
def test_units_find_the_size_that_fits_the_loss(loss, least, most, round_trip):
    path = Path(loss, round_trip=round_trip, every=0.0005).run(30)

    sizes = [segments for at, segments in path.history if at > path.now - 20]
    assert least <= sum(sizes) / len(sizes) <= most


@pytest.mark.parametrize("loss", [0.03, 0.1, 0.3])
def test_messages_are_plain_where_much_is_lost(loss):
    path = Path(loss).run(30)

    assert path.share_of_units(20) < 0.05


def test_units_that_were_under_way_do_not_shrink_the_size_a_second_time():
    path = Path(round_trip=0.2, every=0.001).run(5)
    path.loss = 0.002
    seen = []
    for _ in range(100):
        path.run(0.01)
        if path.size.limit not in seen[-1:]:
            seen.append(path.size.limit)

    assert len([limit for limit in seen if limit < WHOLE]) >= 1
    assert min(seen) >= 5


def test_a_single_lost_unit_among_many_changes_nothing():
    path = Path(every=0.001).run(2)
    path.loss = 1.0
    path.run(0.001)
    path.loss = 0.0

    path.run(2)

    assert path.size.limit == WHOLE


# Slowly up


def test_units_grow_by_a_doubling_a_second_once_nothing_is_lost():
    path = Path(0.002, every=0.0005).run(20)
    path.loss, small = 0.0, path.size.limit
    start = path.now

    path.run(0.9)
    assert path.size.limit <= small * 2
    while path.size.limit < WHOLE:
        path.run(0.1)

    assert path.now - start >= 0.8 * math.log2(WHOLE / small)
    assert path.now - start < 10


def test_a_size_that_is_lost_now_and_then_stays():
    path = Path(0.0008, every=0.0005).run(60)
    sizes = [segments for at, segments in path.history if at > path.now - 40]

    changes = sum(one != other for one, other in pairwise(sizes))

    assert changes <= 40


# Silence


def test_silence_halves_the_size_and_a_second_makes_messages_plain():
    path = Path(1.0).run(0.25)
    assert path.size.allowed(path.now) == WHOLE // 2

    path.run(0.2)

    assert path.size.allowed(path.now) == 0
    assert path.silences == [pytest.approx(100.2), pytest.approx(100.4, abs=0.01)]


def test_a_report_between_two_silences_makes_the_second_the_first():
    size = UnitSize(WHOLE)
    size.sent(0, 0)
    size.silence(0.2)
    size.sent(1, 0.2)
    size.reported(Report(2, 1, 0, 0), 0.3)
    size.sent(2, 0.4)

    size.silence(0.6)

    assert size.allowed(0.6) == WHOLE // 4


def test_nothing_sent_is_no_silence():
    size = UnitSize()
    size.sent(0, 0)
    size.reported(Report(1, 1, 0, 0), 0.05)

    assert size.silence_due() == math.inf


def test_silence_takes_four_round_trips_where_they_are_longer():
    path = Path(round_trip=0.15).run(5)
    path.loss = 1.0
    start = path.now

    path.run(3)

    assert path.silences[0] - start == pytest.approx(4 * 0.19, abs=0.25)
    assert path.silences[0] - start > 0.4


def test_one_unit_is_tried_after_1_2_4_and_up_to_60_seconds():
    path = Path(1.0).run(0.5)
    start = path.silences[-1]

    path.run(300)

    trials = path.units_since(start)
    pauses = [after - before for before, after in zip([start - 0.2, *trials], trials, strict=False)]
    expected = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [pause - 0.2 for pause in pauses][: len(expected)] == [
        pytest.approx(each, abs=0.02) for each in expected
    ]


def test_on_trial_one_unit_goes_and_no_other_until_it_is_reported():
    path = Path(1.0).run(1.0)
    path.loss, path.every, path.round_trip = 0.0, 0.001, 0.08
    start = path.now
    path.run(1.5)

    first, second = path.units_since(start)[:2]

    assert second - first >= 0.08 + 0.04 - 0.002
    assert path.share_of_units(0.2) == 1


def test_a_path_that_lets_units_pass_again_gets_whole_ones_in_the_end():
    path = Path(1.0).run(10)
    path.loss = 0.0

    path.run(25)

    assert path.size.limit == WHOLE


def test_a_path_that_ends_to_let_units_pass_begins_with_short_pauses_again():
    path = Path(1.0).run(40)
    path.loss = 0.0
    path.run(60)
    path.loss = 1.0
    start = path.now
    path.run(4)
    plain_since = path.silences[-1] if len(path.silences) else start

    assert plain_since > start
    assert len(path.units_since(start + 1.0)) >= 1


@pytest.mark.parametrize("round_trip", [0.3, 0.6, 1.2])
def test_reports_that_are_only_late_are_no_reason_to_give_units_up(round_trip):
    path = Path(round_trip=round_trip).run(30)

    assert path.share_of_units(20) == 1
    assert path.size.limit == WHOLE


def test_a_large_unit_that_never_passes_leaves_the_small_ones():
    path = Path()
    path.passes = lambda segments: segments <= 32

    path.run(20)

    assert path.share_of_units(10) > 0.8


# Reports that lie


@pytest.mark.parametrize(
    "report",
    [Report(6, 1, 0, 0), Report(2**64 - 1, 5, 0, 0), Report(3, 4, 0, 0), Report(0, 0, 9, 9)],
    ids=["more than was sent", "much more", "more units than counters", "nothing"],
)
def test_a_report_that_cannot_be_changes_nothing(report):
    size = UnitSize()
    for counter in range(5):
        size.sent(counter, 0.0)
    before = dict(vars(size))

    size.reported(report, 0.1)

    assert vars(size) == before


def test_a_report_of_less_than_before_changes_nothing():
    size = UnitSize()
    for counter in range(5):
        size.sent(counter, 0.0)
    size.reported(Report(5, 4, 0, 0), 0.1)
    before = dict(vars(size))

    size.reported(Report(4, 4, 0, 0), 0.2)
    size.reported(Report(5, 3, 0, 0), 0.2)
    size.reported(Report(5, 4, 0, 0), 0.2)

    assert vars(size) == before


numbers = st.integers(0, 40) | st.integers(0, 2**64 - 1)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["send", "report", "wait"]), numbers, numbers), max_size=200))
def test_whatever_is_reported_the_size_is_one_that_can_be(steps):
    size, now, counter = UnitSize(), 0.0, 0
    for step, one, other in steps:
        if step == "send" and size.allowed(now):
            size.sent(counter, now)
            counter += 1
        elif step == "report":
            size.reported(Report(one, other, 0, 0), now)
        else:
            now += min(one, 40) / 20
            if size.silence_due() <= now:
                size.silence(now)

        assert size.allowed(now) in {0, *range(SMALLEST, WHOLE + 1)}
        assert size.round_trip <= 2.0


# The next keypair


def test_the_next_keypair_begins_with_the_size_that_loss_has_taught():
    path = Path(0.002, every=0.0005).run(20)

    after = path.size.successor()

    assert after.allowed(path.now) == path.size.allowed(path.now) < WHOLE
    assert after.round_trip == path.size.round_trip
    assert after.silence_due() == math.inf


def test_the_next_keypair_begins_plain_where_much_is_lost():
    path = Path(0.2).run(20)

    assert path.size.successor().allowed(path.now) == path.size.allowed(path.now) == 0


def test_the_next_keypair_does_not_inherit_silence():
    path = Path(1.0).run(5)

    assert path.size.successor().allowed(path.now) == WHOLE
