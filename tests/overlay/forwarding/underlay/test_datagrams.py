import pytest

from overlay.forwarding.underlay.datagrams import behind, count, count_all, count_call, count_raw
from overlay.forwarding.underlay.mmsg import MESSAGES


def views(*sizes):
    return [memoryview(bytes([number]) * size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "segment", "expected"),
    [((100,), 0, 1), ((100,), 100, 1), ((101,), 100, 2), ((150, 150), 100, 3)],
)
def test_buffers_of_one_send_are_cut_as_if_they_were_one(sizes, segment, expected):
    assert count(views(*sizes), segment) == expected


@pytest.mark.parametrize(("sizes", "expected"), [((100,), 1), ((101,), 2), ((150, 150), 4), ((300, 1), 4)])
def test_buffers_that_are_cut_one_by_one_are_counted_one_by_one(sizes, expected):
    assert count_all(views(*sizes), 100) == expected


@pytest.mark.parametrize(("sizes", "expected"), [((100,), 1), ((250,), 3), ((100, 100, 7), 3)])
def test_a_carrier_has_one_buffer_of_many_packets_or_one_for_each(sizes, expected):
    assert count_raw(views(*sizes), 100) == count_call(views(*sizes), 100) == expected


def test_one_call_takes_so_many_packets_and_no_more():
    assert count_call(views(100 * (MESSAGES + 1)), 100) == MESSAGES
    assert count_raw(views(100 * (MESSAGES + 1)), 100) == MESSAGES + 1


def test_what_is_left_begins_behind_the_packets_that_have_left():
    (one,), several = views(250), views(100, 100, 7)

    assert behind([one], 100, 2) == [one[200:]]
    assert behind([one], 100, 3) == []
    assert behind(several, 100, 2) == several[2:]
    assert behind(views(100), 100, 1) == []
