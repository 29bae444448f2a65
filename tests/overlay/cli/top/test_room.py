"""How peers, services and events share the screen."""

from __future__ import annotations

import pytest

from overlay.cli.top.room import AROUND, EVENTS, SERVICES, share


@pytest.mark.parametrize(
    ("services", "events", "height", "lines"),
    [
        (0, 0, 24, (0, 0)),
        (2, 9, 24, (2, EVENTS)),
        (9, 9, 60, (SERVICES + 1, EVENTS)),
        (5, 9, 60, (SERVICES, EVENTS)),
        (7, 8, 24, (5, 5)),
        (7, 8, 15, (3, 2)),
        (7, 0, 15, (5, 0)),
        (0, 8, 15, (0, 5)),
        (7, 8, 8, (1, 1)),
        (7, 8, 5, (0, 0)),
        (7, 8, 1, (0, 0)),
    ],
)
def test_services_and_events_get_what_they_need_up_to_half_of_the_screen(services, events, height, lines):
    shared = share(services, events, height)

    assert shared == lines
    assert sum(shared) <= max(height - AROUND, 0) / 2
