from __future__ import annotations

import pytest

from overlay.wire.lanes import in_common, index_of, key_label


@pytest.mark.parametrize(
    ("own", "theirs", "common"),
    [(1, 1, 1), (4, 1, 1), (4, 2, 2), (4, 8, 4), (8, 8, 8), (8, 3, 2), (8, 7, 4), (4, 0, 1), (8, 2**63, 8)],
)
def test_a_session_has_as_many_lanes_as_the_end_with_fewer(own, theirs, common):
    assert in_common(own, theirs) == common


def test_an_index_of_a_lane_is_that_of_the_session_for_lane_0():
    assert index_of(0xA5000207, 0) == 0xA5000207


def test_an_index_of_a_lane_leads_back():
    assert index_of(index_of(0xA5000207, 5), 5) == 0xA5000207


def test_a_label_names_version_and_lane():
    assert key_label(3) == b"overlay lane v1 \x03"
