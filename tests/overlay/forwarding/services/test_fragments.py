from __future__ import annotations

from overlay.forwarding.services import fragments as module
from overlay.forwarding.services.fragments import Fragments
from overlay.reasons import Drops


def made():
    drops = Drops()
    return Fragments(drops), drops


def test_later_fragments_follow_the_first():
    fragments, _ = made()
    assert fragments.later(b"a", 0.0) is None

    assert fragments.first(b"a", "web1", 0.0) == []

    assert fragments.later(b"a", 30.0) == "web1"
    assert fragments.later(b"b", 30.0) is None


def test_fragments_that_come_before_the_first_are_handed_out_with_it_once():
    fragments, drops = made()
    fragments.hold(b"a", b"two", 0.0)
    fragments.hold(b"a", b"three", 1.0)

    assert fragments.first(b"a", "web1", 2.0) == [b"two", b"three"]
    assert fragments.first(b"a", "web1", 2.0) == []
    assert not drops


def test_nothing_is_known_after_its_time_and_what_was_held_is_dropped():
    fragments, drops = made()
    fragments.first(b"a", "web1", 0.0)
    fragments.hold(b"b", b"two", 0.0)

    assert fragments.later(b"a", 30.1) is None
    assert len(fragments) == 0
    assert drops == {"service_fragment": 1}


def test_a_bounded_number_of_fragments_is_held_of_one_packet():
    fragments, drops = made()
    for number in range(20):
        fragments.hold(b"a", bytes([number]), 0.0)

    assert fragments.first(b"a", "web1", 0.0) == [bytes([number]) for number in range(16)]
    assert drops == {"service_fragment": 4}


def test_the_oldest_packets_make_room(monkeypatch):
    monkeypatch.setattr(module, "PACKETS", 3)
    fragments, drops = made()
    fragments.hold(b"a", b"two", 0.0)
    for name in (b"b", b"c", b"d"):
        fragments.first(name, "web1", 1.0)

    assert len(fragments) == 3
    assert fragments.first(b"a", "web1", 1.0) == []
    assert drops == {"service_fragment": 1}


def test_a_bounded_number_of_bytes_is_held_in_all_and_counts_down_again():
    fragments, drops = made()
    for number in range(65):
        fragments.hold(number.to_bytes(1, "big"), bytes(65_536), 0.0)
    assert drops == {"service_fragment": 1}

    fragments.first(b"\0", "web1", 1.0)
    fragments.hold(b"\1", bytes(65_536), 1.0)
    assert drops == {"service_fragment": 1}
    fragments.hold(b"\1", b"x", 1.0)
    assert drops == {"service_fragment": 2}

    for number in range(64):
        fragments.hold(b"new" + number.to_bytes(1, "big"), bytes(65_536), 31.1)
    assert len(fragments) == 64
    assert drops == {"service_fragment": 2 + 64}
