"""What a capture file says about a packet, and about where packets are captured."""

from __future__ import annotations

import pytest

from overlay.capturing.entry import CapturePoint, Entry, describe
from overlay.capturing.pcapng import LINKTYPE_ETHERNET, LINKTYPE_RAW


def test_comment_names_the_peer_and_what_else_is_to_be_said():
    assert (
        Entry(CapturePoint.IN, 0, b"", 0, "tokyo", ("drop=source", "count=2")).comment
        == "peer=tokyo drop=source count=2"
    )
    assert Entry(CapturePoint.IN, 0, b"", 0).comment == ""


def test_comment_is_printable_whatever_it_is_made_of():
    assert Entry(CapturePoint.IN, 0, b"", 0, "to\x1b[2Jkyo\n").comment == r"peer=to\x1b[2Jkyo\n"


@pytest.mark.parametrize("place", CapturePoint)
def test_frames_of_a_tap_are_ethernet_and_datagrams_are_not(place):
    made = describe(place, "overlay0", 96, "icmp", is_tap=True)

    is_inside = place in {CapturePoint.OUT, CapturePoint.IN, CapturePoint.DROPPED}
    assert made.link_type == (LINKTYPE_ETHERNET if is_inside else LINKTYPE_RAW)
    assert made.filter == ("icmp" if is_inside else "")
    assert describe(place, "overlay0", 96, "", is_tap=False).link_type == LINKTYPE_RAW
