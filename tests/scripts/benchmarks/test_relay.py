"""The wire of the benchmarks: what it loses, delays and passes."""

from __future__ import annotations

import pytest

from scripts.benchmarks.relay import BURST_GAP, MOST_HELD, Conditions, Line

FRAME = bytes(1000)


def fates(conditions: Conditions, count: int = 200_000, name: str = "there") -> list[bool]:
    """Return for each of *count* frames whether it was lost."""
    line = Line(conditions, name)
    lost = []
    for _ in range(count):
        before = line.counts.lost
        line.put(FRAME, 0.0)
        line.take(0.0)
        lost.append(line.counts.lost > before)
    return lost


def runs(lost: list[bool]) -> list[int]:
    """Return the lengths of the runs of lost frames."""
    text = "".join("x" if each else " " for each in lost)
    return [len(word) for word in text.split()]


def test_nothing_is_lost_when_no_loss_is_asked_for():
    assert not any(fates(Conditions()))


@pytest.mark.slow
@pytest.mark.parametrize("burst", [1, 10])
@pytest.mark.parametrize("loss", [0.01, 0.03, 0.2])
def test_the_share_that_is_asked_for_is_lost(loss, burst):
    lost = fates(Conditions(loss=loss, burst=burst, seed=1))

    assert sum(lost) / len(lost) == pytest.approx(loss, rel=0.15)


def test_bursts_have_the_length_that_is_asked_for():
    lengths = runs(fates(Conditions(loss=0.01, burst=10, seed=1))[:-10])

    assert lengths
    assert all(length % 10 == 0 for length in lengths)


def test_a_burst_ends_when_nothing_comes_for_a_while():
    line = Line(Conditions(loss=0.01, burst=10, seed=1), "there")
    while not line.counts.lost:
        line.put(FRAME, 1.0)

    line.put(FRAME, 1.0 + 2 * BURST_GAP)

    assert line.counts.lost == 1


def test_a_seed_loses_the_same_frames_again():
    conditions = Conditions(loss=0.1, seed=7)

    assert fates(conditions, 1000) == fates(conditions, 1000)


def test_another_seed_and_another_direction_lose_other_frames():
    first = fates(Conditions(loss=0.1, seed=7), 1000)

    assert first != fates(Conditions(loss=0.1, seed=8), 1000)
    assert first != fates(Conditions(loss=0.1, seed=7), 1000, "back")


def test_a_frame_leaves_after_the_delay():
    line = Line(Conditions(delay=0.025), "there")

    line.put(FRAME, 1.0)

    assert line.due() == 1.025
    assert line.take(1.024) == []
    assert line.take(1.025) == [FRAME]
    assert line.due() is None


def test_frames_leave_at_the_rate_and_in_order():
    line = Line(Conditions(rate=8000 * 1000), "there")  # a frame takes a millisecond
    frames = [bytes([number]) * 1000 for number in range(4)]

    for frame in frames:
        line.put(frame, 0.0)

    assert line.take(0.0021) == frames[:2]
    assert line.take(0.0041) == frames[2:]


def test_a_frame_that_would_wait_too_long_is_refused_and_counted():
    line = Line(Conditions(rate=8000 * 1000, queue=0.0035), "there")

    for _ in range(10):
        line.put(FRAME, 0.0)

    assert line.counts.overflowed == 6
    assert len(line.take(1.0)) == 4


def test_a_queue_that_was_idle_sends_at_once():
    line = Line(Conditions(rate=8000 * 1000), "there")
    line.put(FRAME, 0.0)

    line.put(FRAME, 5.0)

    assert line.take(5.0011) == [FRAME, FRAME]


def test_a_line_holds_no_more_than_its_bound():
    line = Line(Conditions(delay=1000.0), "there")
    large = bytes(1 << 20)

    for _ in range(100):
        line.put(large, 0.0)

    assert sum(map(len, line.take(2000.0))) <= MOST_HELD + len(large)
    assert line.counts.overflowed > 0
