"""What a receive gave, seen as bytes and as an array, and as rows."""

from __future__ import annotations

from overlay.forwarding.offload.flow import Framing
from overlay.forwarding.offload.join import Geometries, Rows
from overlay.forwarding.underlay.received import Received


def test_its_views_are_of_one_buffer():
    received = Received(100)

    received.view[3:5] = b"\x07\x09"

    assert (received.array[3], received.buffer[4], len(received.array)) == (7, 9, 100)
    assert (received.size, received.stride) == (0, 0)


def test_its_rows_are_datagrams_of_which_the_last_may_be_shorter():
    received = Received(100)
    for size, expected in ((40, (2, 20)), (41, (3, 1)), (60, (3, 20)), (20, (1, 20))):
        received.size, received.stride = size, 20

        rows = Rows.of(received, Framing(0, 0, pads=False), Geometries())

        assert (rows.count, rows.last, rows.stride) == (*expected, 20)
