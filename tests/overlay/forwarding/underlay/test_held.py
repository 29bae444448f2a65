from __future__ import annotations

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.underlay import held
from overlay.forwarding.underlay.held import HELD_BYTES, HELD_DATAGRAMS, HELD_MESSAGES, Held


def hold(queue, peer, data):
    """Hold one datagram; return whether there was room."""
    return not queue.add(peer, [memoryview(data)], len(data), 0, 0)


def drain(queue):
    """Return all that is held, sends apart."""
    sent = []
    queue.resume(lambda _, send: sent.append(b"".join(send.buffers)) or ())
    return sent


def taking(sent, room=10**9):
    """Return an attempt that accepts *room* sends and appends them to *sent*."""

    def attempt(peer, send):
        nonlocal room
        if not room:
            return send.buffers
        room -= 1
        sent.append((peer.number, b"".join(send.buffers)))
        return ()

    return attempt


def test_sends_of_a_peer_leave_in_their_order():
    queue, peer, sent = Held(), LivePeer(1), []
    for number in range(5):
        hold(queue, peer, bytes([number]))

    queue.resume(taking(sent))

    assert sent == [(1, bytes([number])) for number in range(5)]
    assert not queue


def test_room_goes_to_peers_in_turns_however_much_one_has():
    queue, sent = Held(), []
    greedy, modest = LivePeer(1), LivePeer(2)
    for number in range(8):
        hold(queue, greedy, bytes([number]))
    hold(queue, modest, b"ping")

    for _ in range(2):
        queue.resume(taking(sent, room=1))

    assert {number for number, _ in sent} == {1, 2}


def test_what_is_held_is_a_copy():
    queue, peer, sent, arena = Held(), LivePeer(1), [], bytearray(b"first")
    hold(queue, peer, arena)
    arena[:] = b"later"

    queue.resume(taking(sent))

    assert sent == [(1, b"first")]


def test_the_rest_of_a_send_stays_first():
    queue, peer, sent = Held(), LivePeer(1), []
    queue.add(peer, [memoryview(b"a"), memoryview(b"b")], 1, 0, 0)
    hold(queue, peer, b"c")
    queue.resume(lambda _, send: send.buffers[1:] if len(send.buffers) > 1 else send.buffers)

    queue.resume(taking(sent))

    assert sent == [(1, b"b"), (1, b"c")]


def test_a_peer_s_bytes_are_bounded_and_another_s_room_is_not_touched():
    queue, greedy, modest = Held(), LivePeer(1), LivePeer(2)
    data = bytes(60_000)

    taken = sum(hold(queue, greedy, data) for _ in range(100))

    assert taken == HELD_BYTES // 60_000
    assert hold(queue, modest, data)
    assert queue.add_message(greedy, b"of our own", 0)


@pytest.mark.parametrize("together", [1, 7, 64])
def test_a_peer_s_datagrams_are_bounded_however_many_leave_together(together):
    queue, peer = Held(), LivePeer(1)
    sends = 2 * HELD_DATAGRAMS // together

    lost = sum(queue.add(peer, [memoryview(bytes(together))], 1, 0, 0) for _ in range(sends))

    assert lost == sends * together - HELD_DATAGRAMS
    assert sum(map(len, drain(queue))) == HELD_DATAGRAMS


def test_messages_of_our_own_are_bounded_whatever_else_waits():
    queue, peer = Held(), LivePeer(1)
    while hold(queue, peer, b"packet"):
        pass

    assert sum(queue.add_message(peer, b"message", 0) for _ in range(2 * HELD_MESSAGES)) == HELD_MESSAGES
    assert drain(queue).count(b"message") == HELD_MESSAGES
    assert sum(queue.add_message(peer, b"message", 0) for _ in range(2 * HELD_MESSAGES)) == HELD_MESSAGES


SENDS = [[200] * 5 + [150], [200] * 3 + [90], [40], [200, 60], [200] * 4]  # sizes of the datagrams of each


@pytest.mark.parametrize("most", [1, 2, 64])
def test_the_datagrams_that_are_held_are_the_same_however_many_leave_together(most, monkeypatch):
    monkeypatch.setattr(held, "HELD_BYTES", 1280)
    queue, peer, lost = Held(), LivePeer(1), 0
    for sizes in SENDS:
        for at in range(0, len(sizes), most):
            datagrams = [memoryview(bytes(size)) for size in sizes[at : at + most]]
            lost += queue.add(peer, datagrams, len(datagrams[0]), 0, 0)

    kept = []
    queue.resume(lambda _, send: kept.extend(map(len, send.buffers)))

    assert kept == [200, 200, 200, 200, 200, 150, 90, 40]
    assert lost == sum(map(len, SENDS)) - len(kept)


def test_of_a_unit_all_fragments_are_held_or_none(monkeypatch):
    monkeypatch.setattr(held, "HELD_BYTES", 1000)
    queue, peer = Held(), LivePeer(1)

    assert queue.add(peer, [memoryview(bytes(1001))], 200, 0, 0, is_unit=True) == 6
    assert peer not in queue
    assert queue.add(peer, [memoryview(bytes(1000))], 200, 0, 0, is_unit=True) == 0
    assert drain(queue) == [bytes(1000)]


def test_the_bytes_of_all_peers_together_are_bounded(monkeypatch):
    monkeypatch.setattr(held, "HELD_BYTES_TOTAL", 5000)
    queue = Held()

    assert sum(hold(queue, LivePeer(number), bytes(1000)) for number in range(10)) == 5


@pytest.mark.parametrize("way", ["sent", "forgotten"])
def test_room_comes_back(way, monkeypatch):
    monkeypatch.setattr(held, "HELD_BYTES_TOTAL", 1000)
    queue, peer = Held(), LivePeer(1)
    for _ in range(3):
        assert hold(queue, peer, bytes(1000))
        assert not hold(queue, LivePeer(2), bytes(1))

        if way == "sent":
            queue.resume(taking([]))
        else:
            queue.forget(peer)

    assert not queue
    assert peer not in queue


def test_a_send_is_tried_with_all_that_it_had_and_so_is_its_rest():
    queue, peer, tried = Held(), LivePeer(1), []
    queue.add(peer, [memoryview(b"a"), memoryview(b"bc")], 2, 7, 5)

    def attempt(peer, send):
        tried.append((peer, b"".join(send.buffers), send.size, send.marks, send.flow))
        return send.buffers[1:] if len(tried) == 1 else ()

    queue.resume(attempt)
    queue.resume(attempt)

    assert tried == [(peer, b"abc", 2, 7, 5), (peer, b"bc", 2, 7, 5)]


def test_a_peer_may_have_exactly_its_bytes_and_gets_room_for_what_has_left():
    queue, peer = Held(), LivePeer(1)
    first, second = HELD_BYTES // 4, HELD_BYTES - HELD_BYTES // 4
    assert not queue.add(peer, [memoryview(bytes(first)), memoryview(bytes(second))], second, 0, 0)
    assert not hold(queue, peer, b"x")

    queue.resume(lambda _, send: send.buffers[1:] if len(send.buffers) > 1 else send.buffers)

    assert not hold(queue, peer, bytes(first + 1))
    assert hold(queue, peer, bytes(first))
    assert not hold(queue, peer, b"x")


def test_all_peers_may_have_exactly_their_bytes_whatever_comes_and_goes(monkeypatch):
    monkeypatch.setattr(held, "HELD_BYTES_TOTAL", 3000)
    queue, peers = Held(), [LivePeer(number) for number in range(3)]
    for _ in range(3):
        for peer in peers:
            assert hold(queue, peer, bytes(1000))
        assert not hold(queue, LivePeer(9), b"x")
        queue.forget(peers[0])
        queue.forget(peers[0])
        assert hold(queue, LivePeer(9), bytes(1000))
        assert not hold(queue, LivePeer(9), b"x")
        queue.resume(taking([]))


def test_who_waits_is_told():
    queue, one, other = Held(), LivePeer(1), LivePeer(2)
    assert not queue
    for number in range(3):
        hold(queue, one, bytes([number]))

    assert queue
    assert (one in queue, other in queue) == (True, False)
    assert list(queue) == [one]


def test_a_peer_that_is_forgotten_in_its_turn_is_passed_over():
    queue, one, other, third, sent = Held(), LivePeer(1), LivePeer(2), LivePeer(3), []
    for peer in (one, other, third):
        hold(queue, peer, b"x")
        hold(queue, peer, b"y")

    def attempt(peer, send):
        sent.append(peer)
        if peer is one:
            queue.forget(other)
        return ()

    queue.resume(attempt)

    assert sent == [one, third, one, third]
    assert not queue


def test_the_first_turn_goes_round():
    queue, peers, first = Held(), [LivePeer(number) for number in range(3)], []
    for peer in peers:
        hold(queue, peer, b"x")

    for _ in range(6):
        tried = []
        queue.resume(lambda peer, send, tried=tried: tried.append(peer) or send.buffers)
        first.append(tried[0])
        assert sorted(each.number for each in tried) == [0, 1, 2]

    assert first == peers * 2
