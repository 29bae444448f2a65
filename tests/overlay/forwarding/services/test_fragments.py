from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


class Twin:
    """Packets as a list, the oldest first: [name, since when, where it goes, what is held]."""

    def __init__(self):
        self.packets, self.dropped = [], 0

    def look(self, name, now, *, is_new):
        while self.packets and self.packets[0][1] + module.LIFETIME < now:
            self.dropped += len(self.packets.pop(0)[3])
        found = [packet for packet in self.packets if packet[0] == name]
        if found or not is_new:
            return found[0] if found else [name, now, None, []]
        if len(self.packets) == 3:
            self.dropped += len(self.packets.pop(0)[3])
        self.packets.append([name, now, None, []])
        return self.packets[-1]

    def held(self):
        return sum(len(fragment) for packet in self.packets for fragment in packet[3])


@pytest.fixture
def narrow(monkeypatch):
    """Bounds that a short story reaches."""
    monkeypatch.setattr(module, "PACKETS", 3)
    monkeypatch.setattr(module, "HELD", 2)
    monkeypatch.setattr(module, "HELD_BYTES", 10)


steps = st.tuples(
    st.sampled_from(["first", "later", "hold", "hold"]),
    st.sampled_from([b"a", b"b", b"c", b"d"]),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.0, 1.0, 15.0, 30.0]),
)


@given(st.lists(steps, max_size=40))
def test_fragments_fare_as_in_a_list_that_is_looked_through(narrow, story):
    (fragments, drops), twin, now = made(), Twin(), 0.0
    for number, (what, name, size, pause) in enumerate(story):
        now += pause
        packet = twin.look(name, now, is_new=what != "later")
        if what == "first":
            assert fragments.first(name, number, now) == packet[3]
            packet[2:] = number, []
        elif what == "later":
            assert fragments.later(name, now) == packet[2]
        else:
            fragment = bytes([number]) * size
            fragments.hold(name, fragment, now)
            if len(packet[3]) < 2 and twin.held() + size <= 10:
                packet[3].append(fragment)
            else:
                twin.dropped += 1
        assert len(fragments) == len(twin.packets)
        assert drops["service_fragment"] == twin.dropped
