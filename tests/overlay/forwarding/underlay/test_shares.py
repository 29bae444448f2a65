from __future__ import annotations

from collections import deque

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.underlay.shares import (
    ASK,
    CALM,
    CROWDED,
    LEAST_BUFFER,
    LEAST_SHARE,
    PART,
    SEND_COST,
    Shares,
)

SIZE = 16 * 1024 * 1024
TRAIN = 64_000


class FakeQueue:
    """A send buffer in front of several paths; what is sent on one waits until that path takes it."""

    def __init__(self, size=SIZE, tells=True):
        self.size, self.tells = size, tells
        self.ways, self.inside = {}, 0
        self.told, self.number, self.is_numbered, self.foreign = [], 0, False, 0
        self.questions = 0

    def send(self, way, size, is_told):
        self.ways.setdefault(way, deque()).append((size + SEND_COST, self.number if is_told else None))
        self.number += is_told
        self.inside += size + SEND_COST

    def leave(self, way, count=None):
        queue = self.ways.get(way, deque())
        for _ in range(len(queue) if count is None else count):
            size, number = queue.popleft()
            self.inside -= size
            if number is not None:
                self.told.append(number)

    def forget(self):
        self.ways.clear()
        self.inside = 0

    def waiting(self):
        return self.foreign + self.inside

    def number_sends(self):
        self.number, self.is_numbered = 0, self.tells
        return self.tells

    def stop_numbers(self):
        self.is_numbered = False

    def departed(self):
        self.questions += 1
        told, self.told = self.told, []
        return told


def crowded(queue):
    queue.foreign = queue.size // CROWDED + 1
    return Shares.if_crowded(queue)


def send(shares, queue, peer, size=TRAIN):
    """Send to *peer* if permitted; return whether it was."""
    if not shares.admits(peer):
        return False
    is_told = shares.asks(peer)
    queue.send(peer, size, is_told)
    shares.sent(peer, size, is_told)
    return True


def fill(shares, queue, peer, size=TRAIN):
    """Send as much to *peer* as permitted; return how many bytes it has in the buffer."""
    while send(shares, queue, peer, size):
        assert queue.waiting() < queue.size
    return sum(size for size, _ in queue.ways[peer])


def test_while_little_waits_nobody_is_looked_at():
    queue = FakeQueue()
    queue.foreign = SIZE // CROWDED

    assert Shares.if_crowded(queue) is None
    assert not queue.is_numbered


@pytest.mark.parametrize(
    "queue", [FakeQueue(LEAST_BUFFER - 1), FakeQueue(tells=False)], ids=["small", "untold"]
)
def test_a_small_buffer_and_a_kernel_that_does_not_tell_have_no_shares(queue):
    assert crowded(queue) is None


@pytest.mark.parametrize("size", [100, 1452, TRAIN])
def test_a_congested_way_gets_no_more_than_its_share(size):
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)

    has = fill(shares, queue, slow, size)

    assert SIZE // (PART + 2) < has <= SIZE // PART + size + SEND_COST


def test_a_way_that_takes_everything_is_never_stopped_beside_a_congested_one():
    queue, slow, fast = FakeQueue(), LivePeer(1), LivePeer(2)
    shares = crowded(queue)
    fill(shares, queue, slow)

    for _ in range(1000):
        assert send(shares, queue, fast)
        queue.leave(fast)
    assert not send(shares, queue, slow)


def test_what_has_left_makes_room_for_as_much():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)

    queue.leave(slow, 8)
    sent = 0
    while send(shares, queue, slow):
        sent += 1

    assert 5 <= sent <= 8  # not every departure is reported


def test_a_departure_that_was_not_told_is_made_good_by_a_later_one():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)
    queue.leave(slow)
    del queue.told[:-1]

    assert send(shares, queue, slow)


def test_many_congested_ways_leave_room_for_others_and_one_for_each():
    queue, fast, slow = FakeQueue(), LivePeer(1000), [LivePeer(number) for number in range(30)]
    shares = crowded(queue)
    for _ in range(20):
        has = []
        for peer in slow:
            queue.leave(peer)
            has.append(fill(shares, queue, peer))

    assert min(has) > LEAST_SHARE // 2
    assert SIZE - queue.waiting() > SIZE // 4
    assert send(shares, queue, fast)


def test_it_is_over_when_little_waits():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)
    queue.leave(slow)
    queue.foreign = SIZE // CALM - 1

    assert shares.admits(slow)
    assert shares.is_over


def test_after_a_send_that_failed_numbers_begin_anew():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)

    shares.failed()

    assert queue.number == 0
    fill(shares, queue, slow)
    queue.leave(slow)
    assert send(shares, queue, slow)


def test_a_number_that_nobody_knows_changes_nothing():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)
    queue.told = [10**6, 2**32 - 1]

    assert not shares.admits(slow)


def test_a_peer_that_was_removed_is_forgotten():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)

    shares.forget(slow)
    queue.leave(slow)

    assert shares.take_departures()
    assert shares.admits(slow)


def test_the_end_has_nothing_told_any_more():
    queue = FakeQueue()
    crowded(queue).end()

    assert not queue.is_numbered


def test_it_is_not_over_while_just_as_much_waits_as_is_called_calm():
    queue, slow = FakeQueue(SIZE + 1), LivePeer(1)
    shares = crowded(queue)
    assert not shares.is_over
    queue.foreign = SIZE // CALM

    assert shares.admits(slow)

    assert not shares.is_over


@pytest.mark.parametrize(("missing", "is_admitted"), [(0, False), (1, True)])
def test_a_peer_that_has_exactly_its_share_may_send_no_more(missing, is_admitted):
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    queue.foreign = SIZE - LEAST_SHARE

    shares.sent(slow, LEAST_SHARE - SEND_COST - missing, is_told=False)

    assert shares.admits(slow) == is_admitted


def test_the_kernel_is_not_asked_what_has_left_while_a_peer_has_less_than_its_share():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)
    queue.leave(slow)
    assert shares.take_departures()
    questions = queue.questions

    for _ in range(3):
        assert send(shares, queue, slow)

    assert queue.questions == questions


def test_the_departure_of_the_first_send_is_told_and_of_the_one_behind_each_128_kib():
    shares, slow = crowded(FakeQueue()), LivePeer(1)
    assert shares.asks(slow)
    shares.sent(slow, 1000, is_told=True)
    assert not shares.asks(slow)
    shares.sent(slow, ASK - SEND_COST - 1, is_told=False)
    assert not shares.asks(slow)

    shares.sent(slow, 1 - SEND_COST, is_told=False)

    assert shares.asks(slow)


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_peer_whose_only_send_has_left_has_nothing_there(has_failed):
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    if has_failed:
        fill(shares, queue, slow)
        queue.forget()
        shares.failed()
    queue.foreign = SIZE - 4 * 1024 * 1024
    assert send(shares, queue, slow, 1024 * 1024)
    assert not shares.admits(slow)

    queue.leave(slow)

    assert shares.admits(slow)
    assert not shares._sends


def test_what_is_known_to_have_left_is_taken_whatever_was_told_before_it():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)
    queue.told = [10**6]
    queue.leave(slow)
    queue.foreign = SIZE - LEAST_SHARE  # so that its share is far less than it has sent

    assert shares.admits(slow)


def test_nothing_is_kept_of_a_peer_that_was_removed_nor_looked_for_of_one_unknown():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    fill(shares, queue, slow)

    shares.forget(slow)
    shares.forget(LivePeer(2))

    assert shares.admits(slow)
    assert not shares._sends


def test_the_smallest_buffer_that_has_shares_has_them():
    assert crowded(FakeQueue(LEAST_BUFFER)) is not None


def test_shares_are_whole_bytes():
    queue, slow = FakeQueue(), LivePeer(1)
    shares = crowded(queue)
    queue.foreign = SIZE - PART * (LEAST_SHARE + 1) - 1  # a fraction more than LEAST_SHARE + 1 is the share

    shares.sent(slow, LEAST_SHARE + 1 - SEND_COST, is_told=False)

    assert not shares.admits(slow)
