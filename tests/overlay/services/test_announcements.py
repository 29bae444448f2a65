from __future__ import annotations

import math

from overlay.services.announcements import Announcements


def told(announcements, until):
    """Return when how many were announced, up to *until*."""
    heard = []
    while (now := announcements.next_deadline()) <= until:
        heard.append((now, announcements.handle_deadline(now)))
    return heard


def test_addresses_are_announced_at_once_again_soon_and_once_a_minute():
    announcements = Announcements()
    assert announcements.next_deadline() == math.inf
    announcements.begin(100.0)

    assert told(announcements, 230.0) == [(100.0, 5), (105.0, 5), (165.0, 1), (225.0, 1)]


def test_nothing_is_announced_before_its_time_or_after_the_end():
    announcements = Announcements()
    announcements.begin(100.0)
    announcements.handle_deadline(100.0)
    assert announcements.handle_deadline(104.9) == 0
    announcements.end()

    assert announcements.handle_deadline(1000.0) == 0
    assert announcements.next_deadline() == math.inf


def test_a_second_takeover_begins_anew():
    announcements = Announcements()
    announcements.begin(0.0)
    told(announcements, 200.0)
    announcements.end()
    announcements.begin(300.0)

    assert told(announcements, 310.0) == [(300.0, 5), (305.0, 5)]
