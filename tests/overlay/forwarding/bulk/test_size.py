from __future__ import annotations

import heapq
import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.bulk.size import (
    FIRST,
    FIRST_PAUSE,
    LONGEST_ROUND_TRIP,
    SILENCE_TIME,
    SMALLEST,
    WHOLE,
    UnitSize,
)
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


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "least", "most"), [(0.0001, 40, 64), (0.0002, 16, 32), (0.001, 0, 2)])
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
    path = Path(0.0002, every=0.0005).run(20)
    path.loss, small = 0.0, path.size.limit
    assert not path.size.is_plain
    start = path.now

    path.run(0.9)
    assert path.size.limit <= small * 2
    while path.size.limit < WHOLE:
        path.run(0.1)

    assert path.now - start >= 0.8 * math.log2(WHOLE / small)
    assert path.now - start < 10


@pytest.mark.slow
def test_a_size_that_is_lost_now_and_then_stays():
    path = Path(0.0002, every=0.0005).run(60)
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


# False reports


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
    path = Path(0.05).run(20)

    assert path.size.successor().allowed(path.now) == path.size.allowed(path.now) == 0


def test_the_next_keypair_does_not_inherit_silence():
    path = Path(1.0).run(5)

    assert path.size.successor().allowed(path.now) == WHOLE


# The effect of one report, or one silence, on the size


def told(size, newest, lost, now):
    """Make *size* take a report that *lost* of the units before *newest* were lost."""
    size.reported(Report(newest, newest - lost, 0, 0), now)


def after(limit, seen, lost):
    """Return the size after one report of *seen* units of *limit* segments; 0 for plain messages."""
    size = UnitSize(limit)
    size.sent(seen - 1, 0.0)
    told(size, seen, lost, 0.1)
    return size.allowed(0.1)


@pytest.mark.parametrize(
    ("limit", "seen", "lost", "expected"),
    [
        (WHOLE, 100, 2, WHOLE),  # tolerated: 0.5, and two deviations and one
        (WHOLE, 470, 7, 18),  # 0.0036 of them would be lost
        (WHOLE, 440, 7, 16),
        (WHOLE, 80, 2, WHOLE),
        (WHOLE, 40_000, 230, 32),  # half at least
        (63, 40_000, 230, 31),
        (WHOLE, 80, 5, 16),  # a quarter at most
        (WHOLE, 20, 10, 16),
        (WHOLE, 20, 19, 16),
        (56, 20, 10, 0),
        (32, 20, 10, 0),
    ],
)
def test_units_become_so_small_that_their_loss_would_be_what_is_aimed_at(limit, seen, lost, expected):
    assert after(limit, seen, lost) == expected


@pytest.mark.parametrize(
    ("first", "at", "seen", "are_counted_anew"),
    [
        ((256, 4), 0.5, 100, True),
        ((255, 4), 0.5, 101, False),
        ((64, 2), 1.0, 100, True),
        ((64, 2), 0.96875, 100, False),
        ((63, 2), 1.0, 101, False),
    ],
)
def test_losses_are_counted_anew_after_256_units_or_64_and_a_second(first, at, seen, are_counted_anew):
    size = UnitSize(WHOLE)
    size.sent(999, 0.0)
    told(size, 10, 0, 1.0)
    told(size, *first, 1.0 + at)

    told(size, first[0] + seen, first[1] + 2, 1.0 + at)

    assert (size.limit == WHOLE) == are_counted_anew


def test_units_of_the_size_before_tell_nothing_of_the_present_one():
    size = UnitSize(WHOLE)
    size.sent(499, 0.0)
    told(size, 470, 7, 0.1)
    assert size.limit == 18

    told(size, 480, 17, 0.2)
    told(size, 500, 37, 0.3)
    told(size, 500 + 1, 37 + 1, 0.4)  # more than was sent
    size.sent(509, 0.3)
    told(size, 510, 38, 0.4)

    assert size.limit == 18


@pytest.mark.parametrize(
    ("seen", "lost", "at", "limit"),
    [
        (556, 1, 1.0, WHOLE),
        (555, 1, 1.0, 32),
        (556, 1, 0.96875, 32),
        (5001, 9, 1.0, WHOLE),
        (4999, 9, 1.0, 32),
    ],
)
def test_units_grow_after_a_second_if_half_of_what_is_aimed_at_was_lost(seen, lost, at, limit):
    size = UnitSize(32)
    size.sent(9999, 0.0)
    told(size, 10, 1, 1.0)
    assert size.limit == 32

    told(size, seen, lost, 1.0 + at)

    assert size.limit == limit


def test_a_second_of_growth_begins_where_the_last_ended():
    size = UnitSize(9)
    size.sent(9999, 0.0)
    told(size, 10, 1, 1.0)
    told(size, 600, 1, 2.0)
    assert size.limit == 18
    size.sent(10_999, 2.0)
    told(size, 10_500, 1, 2.25)  # the first of the new size, which starts its second
    told(size, 10_700, 1, 2.5)
    told(size, 10_800, 1, 3.125)
    assert size.limit == 18

    told(size, 10_900, 1, 3.5)

    assert size.limit == 36


def test_units_are_doubled_with_each_report_of_no_loss_and_no_more_once_they_are_whole():
    size, limits = UnitSize(), []
    for number in range(5):
        size.sent(number, number / 10)
        told(size, number + 1, 0, number / 10)
        limits.append(size.limit)

    assert limits == [32, 64, 64, 64, 64]


def test_units_that_have_grown_whole_shrink_with_the_first_report_of_many_losses():
    size = UnitSize(32)
    size.sent(0, 0.0)
    told(size, 1, 0, 0.1)
    size.sent(29, 0.1)
    told(size, 10, 0, 0.2)
    assert size.limit == WHOLE

    told(size, 30, 10, 0.3)

    assert size.limit == SMALLEST


def test_a_first_report_of_a_loss_or_a_silence_ends_the_doubling():
    lossy, silent = UnitSize(16), UnitSize(32)
    for size in (lossy, silent):
        size.sent(9, 0.0)
    told(lossy, 5, 1, 0.1)
    silent.silence(0.2)
    silent.sent(10, 0.2)

    told(lossy, 10, 1, 0.15)
    told(silent, 10, 0, 0.3)

    assert (lossy.limit, silent.limit) == (16, 16)


@pytest.mark.parametrize(("limit", "expected"), [(64, 32), (33, 16), (32, 16), (31, 0), (16, 0)])
def test_a_silence_halves_units_that_are_no_less_than_the_smallest_then(limit, expected):
    size = UnitSize(limit)
    size.sent(0, 0.0)

    size.silence(0.2)

    assert size.allowed(0.2) == expected
    assert size.silence_due() == math.inf


def silent_twice(limit=WHOLE):
    """Return a size that two silences have ended, at 0.4."""
    size = UnitSize(limit)
    for number in range(2):
        size.sent(number, 0.2 * number)
        size.silence(0.2 * number + 0.2)
    assert size.allowed(0.4) == 0
    return size


def test_reports_that_come_after_all_bring_the_size_back_that_was_before_the_silence():
    size = silent_twice()

    told(size, 1, 0, 0.5)

    assert size.allowed(0.5) == WHOLE
    assert size.silence_due() == math.inf


def test_a_silence_after_one_that_was_only_late_is_a_first_one_again():
    size = silent_twice()
    told(size, 1, 0, 0.5)
    size.sent(2, 0.5)

    size.silence(0.7)

    assert size.allowed(0.7) == WHOLE // 2


def test_a_unit_on_trial_that_is_reported_ends_the_pause_with_the_smallest_units():
    size = silent_twice()
    assert size.allowed(0.4 + FIRST_PAUSE - 0.01) == 0
    assert size.allowed(0.4 + FIRST_PAUSE) == SMALLEST
    size.sent(2, 0.4 + FIRST_PAUSE)
    assert size.allowed(0.4 + FIRST_PAUSE) == 0

    told(size, 3, 2, 1.5)

    assert size.allowed(1.5) == size.limit == SMALLEST
    assert size.silence_due() == math.inf
    size.sent(3, 1.5)
    size.silence(1.7)
    assert size.allowed(1.7) == 0  # the smallest are not halved
    assert size.allowed(1.7 + 2 * FIRST_PAUSE - 0.01) == 0
    assert size.allowed(1.7 + 2 * FIRST_PAUSE) == SMALLEST


def test_a_good_second_makes_the_next_pause_a_short_one():
    size = silent_twice()
    size.sent(2, 1.5)
    told(size, 3, 2, 1.5)
    size.sent(99, 1.5)
    told(size, 50, 2, 1.5)
    told(size, 100, 2, 2.5)
    size.sent(100, 2.5)
    size.silence(2.75)
    size.sent(101, 2.75)
    size.silence(3.0)

    assert size.allowed(3.0 + FIRST_PAUSE - 0.01) == 0
    assert size.allowed(3.0 + FIRST_PAUSE) == SMALLEST


def test_the_round_trip_is_that_of_one_unit_at_a_time_and_smoothed():
    size = UnitSize(WHOLE)
    size.sent(0, 1.0)
    size.sent(1, 1.25)
    told(size, 1, 0, 1.5)
    assert size.round_trip == 0.5
    told(size, 2, 0, 1.75)
    assert size.round_trip == 0.5  # no record of when that one was sent
    size.sent(2, 2.0)
    told(size, 3, 0, 3.0)

    assert size.round_trip == 0.875 * 0.5 + 0.125 * 1.0


@pytest.mark.parametrize(
    ("seconds", "is_taken"), [(LONGEST_ROUND_TRIP, True), (LONGEST_ROUND_TRIP + 0.25, False)]
)
def test_a_round_trip_that_is_too_long_is_a_pause_of_the_sender(seconds, is_taken):
    size = UnitSize(WHOLE)
    size.sent(0, 1.0)

    told(size, 1, 0, 1.0 + seconds)

    assert bool(size.round_trip) == is_taken


def test_after_a_silence_the_round_trip_is_that_of_the_next_unit():
    size = UnitSize(WHOLE)
    size.sent(0, 1.0)
    size.silence(1.25)
    size.sent(1, 2.0)
    size.sent(2, 2.25)

    told(size, 2, 1, 2.5)

    assert size.round_trip == 0.5


def test_a_report_is_waited_for_since_the_first_unit_that_nothing_was_reported_of():
    size = UnitSize(WHOLE)
    assert not size.is_known_to_pass
    size.sent(0, 1.0)
    size.sent(1, 1.125)
    assert size.silence_due() == 1.0 + SILENCE_TIME

    told(size, 1, 0, 1.25)
    size.sent(2, 1.5)

    assert size.silence_due() == 1.5 + 4 * 0.25
    assert size.is_known_to_pass


def test_units_that_are_given_up_are_not_known_to_pass():
    size = UnitSize(WHOLE)
    size.sent(19, 0.0)
    told(size, 1, 0, 0.1)
    for now in (0.2, 0.4):
        size.sent(20, now)
        size.silence(now + 0.2)

    assert not size.is_known_to_pass


# The initial size of the next keypair


def test_a_size_that_is_growing_goes_on_to_grow_under_the_next_keypair_and_another_does_not():
    growing, lossy = UnitSize(16), UnitSize(16)
    lossy.sent(9, 0.0)
    told(lossy, 10, 1, 0.1)
    limits = []
    for size in (growing.successor(), lossy.successor()):
        size.sent(0, 1.0)
        told(size, 1, 0, 1.1)
        limits.append(size.limit)

    assert limits == [32, 16]


def test_a_pause_that_loss_has_led_to_is_the_next_keypairs_too():
    size = UnitSize(32)
    size.sent(19, 0.0)
    told(size, 20, 10, 1.0)
    following = size.successor()

    for each in (size, following):
        assert each.allowed(1.0 + FIRST_PAUSE - 0.01) == 0
        assert each.allowed(1.0 + FIRST_PAUSE) == SMALLEST
        each.sent(20, 2.0)
        each.silence(2.25)
        assert each.allowed(2.25 + 2 * FIRST_PAUSE - 0.01) == 0
        assert each.allowed(2.25 + 2 * FIRST_PAUSE) == SMALLEST


def test_a_pause_that_silence_has_led_to_is_not():
    following = silent_twice(40).successor()

    assert following.allowed(0.4) == following.limit == 40
    following.sent(0, 1.0)
    following.silence(1.2)
    following.sent(1, 1.2)
    following.silence(1.4)
    assert following.allowed(1.4 + FIRST_PAUSE) == SMALLEST


def test_a_report_that_was_overtaken_changes_nothing():
    size = UnitSize(FIRST)
    for counter in range(20):
        size.sent(counter, 1.0)
    size.reported(Report(newest=10, units=5, datagrams=5, missing=0), 1.1)
    size.sent(20, 1.2)

    size.reported(Report(newest=8, units=6, datagrams=6, missing=0), 1.3)

    assert size.waits_since == 1.2
