from __future__ import annotations

import pytest

from overlay.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.9, "0 s"),
        (12.7, "12 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (26 * 3600, "1 d 2 h"),
        (4 * 86400 + 59, "4 d"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds, text):
    assert format_duration(seconds) == text
