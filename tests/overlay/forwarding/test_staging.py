from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding import staging
from overlay.forwarding.staging import STAGED_BYTES, STAGED_BYTES_TOTAL, Staging
from tests.hypothesis_profiles import examples


class SlowStaging:
    """Twin of Staging: one list in order of arrival, and every sum computed again."""

    def __init__(self, per_peer, total, packets):
        self.per_peer, self.total, self.packets = per_peer, total, packets
        self.staged = []

    def add(self, peer, packet):
        self.staged.append((peer, packet))
        dropped = []
        while sum(len(data) for owner, data in self.staged if owner == peer) > self.per_peer:
            first = next(pair for pair in self.staged if pair[0] == peer)
            self.staged.remove(first)
            dropped.append(first)
        while sum(len(data) for _, data in self.staged) > self.total or len(self.staged) > self.packets:
            dropped.append(self.staged.pop(0))
        return dropped

    def take(self, peer):
        taken = [data for owner, data in self.staged if owner == peer]
        self.staged = [pair for pair in self.staged if pair[0] != peer]
        return taken


adds = st.tuples(st.just("add"), st.integers(1, 4), st.integers(2, 60))
takes = st.tuples(st.just("take"), st.integers(1, 4), st.just(0))


@examples(300)
@given(st.lists(adds | adds | adds | takes, max_size=120), st.integers(60, 150), st.integers(60, 400))
def test_staging_does_what_its_twin_does(steps, per_peer, total):
    fast, slow = Staging(per_peer, total), SlowStaging(per_peer, total, staging.STAGED_PACKETS_TOTAL)
    for number, (what, peer, size) in enumerate(steps):
        if what == "add":
            packet = bytes([number % 256, number // 256]).ljust(size, b".")
            assert fast.add(peer, packet) == slow.add(peer, packet)
        else:
            assert fast.take(peer) == slow.take(peer)
        assert len(fast) == len(slow.staged)
        assert [peer in fast for peer in range(1, 5)] == [
            any(owner == peer for owner, _ in slow.staged) for peer in range(1, 5)
        ]

    assert [fast.take(peer) for peer in range(1, 5)] == [slow.take(peer) for peer in range(1, 5)]
    assert (len(fast), fast._bytes) == (0, 0)


@examples(30)
@given(st.integers(0, 10_000))
def test_the_oldest_goes_first_also_where_much_that_came_before_it_has_gone(seed):
    """The queue is compacted once most of it has been taken; those that remain keep their order."""
    chance, total = random.Random(seed), 3000
    fast, slow = Staging(10_000, total), SlowStaging(10_000, total, staging.STAGED_PACKETS_TOTAL)
    for number in range(1500):
        peer = chance.randrange(1, 30)
        if chance.random() < 0.45:
            assert fast.take(peer) == slow.take(peer)
        else:
            packet = number.to_bytes(4, "big").ljust(chance.randrange(4, 200), b".")
            assert fast.add(peer, packet) == slow.add(peer, packet)

    # Everything that waits is displaced, one by one.
    for number in range(200):
        assert fast.add(100 + number, bytes(100)) == slow.add(100 + number, bytes(100))


def test_one_peer_has_256_kib_and_the_oldest_goes():
    staged = Staging()
    sent = [bytes([number]) * 65_000 for number in range(6)]

    dropped = [staged.add(1, packet) for packet in sent]

    assert dropped == [[], [], [], [], [(1, sent[0])], [(1, sent[1])]]
    assert staged.take(1) == sent[2:]
    assert STAGED_BYTES == 4 * 65_536


def test_all_peers_have_16_mib_and_the_oldest_of_all_goes():
    staged = Staging()
    packet = bytes(65_536)
    for peer in range(256):
        assert staged.add(peer, packet) == []

    assert staged.add(256, packet) == [(0, packet)]
    assert STAGED_BYTES_TOTAL == 256 * 65_536


def test_small_packets_are_bounded_by_their_number(monkeypatch):
    monkeypatch.setattr(staging, "STAGED_PACKETS_TOTAL", 10)
    staged = Staging()
    for peer in range(10):
        staged.add(peer, b"packet")

    assert staged.add(10, b"packet") == [(0, b"packet")]
    assert len(staged) == 10


def test_what_was_taken_and_staged_again_goes_out_once():
    staged = Staging()
    for packet in (b"one", b"two"):
        staged.add(1, packet)
    again = staged.take(1)
    for packet in again:
        staged.add(1, packet)

    assert staged.take(1) == [b"one", b"two"]
    assert staged.take(1) == []


def test_arrivals_of_packets_long_gone_are_forgotten():
    staged = Staging()
    for number in range(10_000):
        staged.add(1, number.to_bytes(4, "big"))
        staged.take(1)

    assert len(staged._arrivals) < 100


def test_departed_arrivals_are_forgotten_and_those_that_wait_keep_their_turn():
    staged, kept = Staging(total=1000), []
    for number in range(60):
        kept += [number.to_bytes(4, "big") + bytes(4)]
        staged.add(1, kept[-1])
    for number in range(500):
        staged.add(2, number.to_bytes(4, "big"))
        staged.take(2)
        assert len(staged._arrivals) <= 2 * (len(staged) + 1) + 64

    dropped = staged.add(3, bytes(1000))

    assert dropped == [(1, packet) for packet in kept]


def test_a_packet_larger_than_a_peer_may_have_goes_at_once():
    staged = Staging(per_peer=10)

    assert staged.add(1, b"12345678901") == [(1, b"12345678901")]
    assert (len(staged), 1 in staged) == (0, False)


class Watched(bytes):
    """A packet that counts how many of its kind exist."""

    kept = 0

    def __init__(self, _):
        Watched.kept += 1

    def __del__(self):
        Watched.kept -= 1


def test_packets_that_were_taken_are_not_kept():
    staged = Staging()
    for peer in range(50):
        staged.add(peer, Watched(10))

    for peer in range(50):
        staged.take(peer)

    assert Watched.kept == 0


def test_few_packets_that_were_taken_are_kept_while_others_wait():
    staged = Staging()
    staged.add(1, b"waits")

    for _ in range(500):
        staged.add(2, Watched(10))
        staged.take(2)

    assert Watched.kept <= 66
