"""When peers are dropped early."""

from __future__ import annotations

import pytest

from overlay.forwarding.underlay.crowding import (
    AT_ONCE,
    DATAGRAM_COST,
    MEMORY,
    MOST_WAITING,
    PATIENCE,
    Crowding,
    pieces_of,
    pieces_of_rows,
)

NOW = 1000.0
SIZE = 100
EACH = DATAGRAM_COST + SIZE


class Queue:
    """A receive buffer in which so many small datagrams wait."""

    def __init__(self, waiting):
        self.waiting = waiting

    def arrived(self):
        return self.waiting * EACH


def go(crowding, waiting, now, *, is_behind=True):
    """Take a go of small datagrams while *waiting* wait, and return whether peers are dropped in it."""
    crowding.begin(Queue(waiting), now)
    crowding.end(AT_ONCE, AT_ONCE, AT_ONCE * SIZE, is_behind=is_behind)
    return crowding.is_pressed


def pressed():
    crowding = Crowding()
    for now in (NOW, NOW, NOW + 1.1 * PATIENCE):
        go(crowding, MOST_WAITING + 1, now)
    assert crowding.is_pressed
    return crowding


def test_burst_is_taken_whole():
    crowding = Crowding()
    goes = [go(crowding, 20_000, NOW), go(crowding, 20_000, NOW), go(crowding, 20_000, NOW + PATIENCE / 2)]

    assert goes == [False] * 3
    assert not go(crowding, MOST_WAITING, NOW + PATIENCE), "few wait"
    assert not go(crowding, MOST_WAITING + 1, NOW + PATIENCE), "patience begins again"


def test_nobody_is_dropped_where_the_last_go_has_taken_all():
    crowding = Crowding()
    for number in range(5):
        assert not go(crowding, MOST_WAITING + 1, NOW + number * PATIENCE, is_behind=False)


def test_where_the_queue_was_long_just_now_there_is_no_patience():
    crowding = pressed()

    assert not go(crowding, MOST_WAITING, NOW + 2 * PATIENCE)
    assert go(crowding, MOST_WAITING + 1, NOW + 2 * PATIENCE)
    assert not go(crowding, MOST_WAITING, NOW + 3 * PATIENCE)
    assert not go(crowding, MOST_WAITING + 1, NOW + 3 * PATIENCE + MEMORY)


@pytest.mark.parametrize(
    ("size", "merged", "pieces"),
    [(100, 0, 1), (0, 0, 0), (64_000, 1400, 1), (64_000, 1000, 64), (2001, 1000, 3)],
)
def test_work_is_counted_by_datagrams_and_large_merged_ones_as_one(size, merged, pieces):
    assert pieces_of(size, merged) == pieces


@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [([100], 1), ([1400], 1), ([1400] * 64, 1), ([100] * 64, 64), ([1400, 1023, 1024], 2)],
)
def test_large_packets_of_one_sender_in_a_call_count_as_one(sizes, pieces):
    assert pieces_of_rows(sizes) == pieces
