"""How many packets are read in one go."""

from __future__ import annotations

from overlay.forwarding.underlay.batching import PROBE, QUICK, Batching


def goes(pace, counts, every):
    """Let that many packets wait each time, *every* seconds; return how each reading began: True for one at a time."""
    modes = []
    for number, waiting in enumerate(counts, 1):
        modes.append(pace.takes_one(number * every))
        if not modes[-1]:
            pace.took(waiting)
    return modes


def test_the_first_go_takes_all_there_is():
    assert not Batching().takes_one(1.0)


def test_packets_that_come_slowly_are_taken_one_by_one():
    assert goes(Batching(), [1] * 20, 2 * QUICK) == [False, *[True] * 19]


def test_packets_that_come_quickly_are_asked_for_now_and_then():
    modes = goes(Batching(), [1] * (3 * PROBE + 1), QUICK / 2)[1:]

    assert modes.count(False) == 3


def test_a_burst_is_taken_in_batches_as_long_as_there_are_more_than_one():
    pace = Batching()
    goes(pace, [1], QUICK / 2)

    modes = goes(pace, [5] * (PROBE + 4), QUICK / 2)

    assert modes == [True] * (PROBE - 1) + [False] * 5


def test_after_a_burst_they_are_taken_one_by_one_again():
    pace = Batching()

    assert goes(pace, [5, 5, 1, 1], QUICK / 2) == [False, False, False, True]


def test_a_go_of_two_packets_is_a_batch():
    pace = Batching()
    pace.took(2)

    assert not pace.takes_one(1.0)


def test_the_first_of_quick_goes_that_asks_for_more_is_the_fourth():
    assert goes(Batching(), [1] * 10, QUICK / 2) == [False, *[True] * 3, False, *[True] * 3, False, True]


def test_goes_at_exactly_the_pace_of_quick_ones_are_quick():
    assert goes(Batching(), [1] * 9, QUICK).count(False) > 1


def test_the_first_second_of_the_clock_is_like_any_other():
    pace = Batching()
    pace.took(1)

    assert [pace.takes_one(0.5 + number) for number in range(2 * PROBE)] == [True] * 2 * PROBE
