"""An overloaded path does not delay the others."""

from __future__ import annotations

import errno
import socket
from collections import Counter, deque

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Role
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.underlay.sender import Sender
from overlay.forwarding.underlay.udp_socket import UdpSocket
from overlay.host.sockets.queues import TELL
from tests.overlay.forwarding.underlay.sending import SOURCE, V4, FakeRaw, made, peer_at, train


class Ways(FakeRaw):
    """A socket in front of several paths, with the kernel's reports; what goes to an address of *slow* stays."""

    size = 16 * 1024 * 1024

    def __init__(self, *slow):
        super().__init__()
        self.slow, self.inside, self.told, self.numbers, self.taken = slow, {}, [], None, Counter()
        self.bytes_inside = 0

    def sendmsg(self, buffers, control, flags, address):
        is_told = TELL in control
        data = sum(map(len, buffers))
        if self.waiting() >= self.size:
            raise BlockingIOError(errno.EAGAIN, "EAGAIN")
        self.taken[address] += data
        number = self.numbers
        if is_told:
            self.numbers += 1
        if address in self.slow:
            self.hold(address, data + 768, number if is_told else None)
        elif is_told:
            self.told.append(number)
        return data

    def hold(self, address, size, number=None):
        self.inside.setdefault(address, deque()).append((size, number))
        self.bytes_inside += size

    def leave(self, address):
        size, number = self.inside[address].popleft()
        self.bytes_inside -= size
        if number is not None:
            self.told.append(number)

    def waiting(self):
        return self.bytes_inside

    def number_sends(self):
        self.numbers = 0
        return True

    def stop_numbers(self):
        self.numbers = None

    def departed(self):
        told, self.told = self.told, []
        return told


SLOW, FAST = ("192.0.2.1", 51820), ("192.0.2.2", 51820)


def before_ways(*slow):
    raw, sender = Ways(*slow), Sender(segments=True)
    sender.sockets.append(UdpSocket(raw, socket.AF_INET, queue=raw))
    return sender, raw, peer_at(SLOW), peer_at(FAST)


def test_a_congested_way_stops_no_other_and_what_is_beyond_its_share_is_counted():
    sender, raw, slow, fast = before_ways(SLOW)

    for _ in range(2000):
        sender.send(slow, train(40, 1400), 1400, 0)
        sender.send(fast, train(40, 1400), 1400, 0)

    assert raw.taken[FAST] == 2000 * 40 * 1400
    assert fast.drops == {}
    assert raw.taken[SLOW] + slow.drops["send_full"] * 1400 == 2000 * 40 * 1400
    assert 0.5 * 2**20 < raw.taken[SLOW] < 2.5 * 2**20
    assert not sender.is_holding


def test_a_congested_way_carries_what_it_can():
    sender, raw, slow, _ = before_ways(SLOW)
    for _ in range(500):
        sender.send(slow, train(40, 1400), 1400, 0)
    before = raw.taken[SLOW]

    for _ in range(300):
        raw.leave(SLOW)
        sender.send(slow, train(40, 1400), 1400, 0)

    assert raw.taken[SLOW] - before >= 280 * 40 * 1400  # not every departure is reported


def test_messages_of_our_own_leave_for_a_congested_way_too():
    sender, raw, slow, _ = before_ways(SLOW)
    for _ in range(500):
        sender.send(slow, train(40, 1400), 1400, 0)
    before = raw.taken[SLOW]

    sender.send_message(slow, b"keepalive")

    assert raw.taken[SLOW] == before + 9


def test_when_the_way_is_free_again_nothing_is_dropped_or_told():
    sender, raw, slow, _ = before_ways(SLOW)
    for _ in range(500):
        sender.send(slow, train(40, 1400), 1400, 0)
    while raw.inside[SLOW]:
        raw.leave(SLOW)
    raw.slow = ()
    slow.drops.clear()

    for _ in range(500):
        sender.send(slow, train(40, 1400), 1400, 0)

    assert slow.drops == {}
    assert raw.numbers is None


def test_late_departures_are_read_so_that_they_wake_nobody():
    sender, raw, _, _ = before_ways()
    raw.told = [3]

    assert sender.take_departures(sender.sockets[0])
    assert not sender.take_departures(sender.sockets[0])


def test_a_removed_peer_and_a_closed_socket_leave_no_share_behind():
    sender, _, slow, fast = before_ways(SLOW)
    for _ in range(500):
        sender.send(slow, train(40, 1400), 1400, 0)

    sender.forget(slow)
    sender.leave(sender.sockets[0])
    sender.sockets.append(UdpSocket(FakeRaw(), socket.AF_INET))
    sender.send(fast, train(), 100, 0)

    assert fast.drops == {}


class RawWays(Ways):
    """The same for a raw socket, which accepts *room* packets in a call at most, and none once *full* is set."""

    def __init__(self, *slow, room=64):
        super().__init__(*slow)
        self.room, self.error, self.begun, self.sizes = room, None, 0, []

    def number_sends(self):
        self.begun += 1
        return super().number_sends()

    def send(self, buffers, size, marks, address, *, tells=False):
        if self.error:
            raise OSError(self.error, errno.errorcode[self.error])
        packed = [bytes(each) for each in buffers]
        if len(packed) == 1:
            packed = [packed[0][at : at + size] for at in range(0, len(packed[0]), size)]
        sent = packed[: min(self.room, 64)]
        for number, each in enumerate(sent):
            is_last = number == min(len(packed), 64) - 1
            self.sendmsg([each], [TELL] if tells and is_last else [], 0, address)
        self.sizes += map(len, sent)
        return len(sent)


def raw_ways(*slow, **how):
    raw, sender = RawWays(*slow, **how), Sender(segments=True)
    ipip = ENCAPSULATIONS["ipip"]
    for role in (Role.SENDS, Role.SENDS_WHOLE):
        udp = UdpSocket(
            raw, socket.AF_INET, encapsulation=ipip, role=role, protocol=4, carrier=raw, queue=raw
        )
        sender.sockets.append(udp)
    peers = [LivePeer(number, ipip) for number in (1, 2)]
    for peer, at in zip(peers, (SLOW, FAST), strict=True):
        peer.move(at)
    return sender, raw, *peers


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_a_congested_way_of_raw_packets_stops_no_other_either(whole):
    sender, raw, slow, fast = raw_ways(SLOW)
    packed = [memoryview(b"".join(train(40, 1400)))] if whole else train(40, 1400)

    for _ in range(1000):
        sender.send(slow, packed, 1400, 0)
        sender.send(fast, packed, 1400, 0)

    assert raw.taken[FAST] == fast.traffic.tx_bytes == 1000 * 40 * 1400
    assert fast.drops == {}
    assert raw.taken[SLOW] == slow.traffic.tx_bytes
    assert raw.taken[SLOW] + slow.drops["send_full"] * 1400 == 1000 * 40 * 1400
    assert 0.5 * 2**20 < raw.taken[SLOW] < 2.5 * 2**20
    assert not sender.is_holding


def test_a_congested_way_of_small_raw_packets_has_the_same_share():
    """The kernel's overhead for each is most of what they use."""
    sender, raw, slow, fast = raw_ways(SLOW)

    for _ in range(100):
        sender.send(slow, train(40, 60), 60, 0)
        sender.send(fast, train(40, 60), 60, 0)

    assert raw.taken[FAST] == 100 * 40 * 60
    assert raw.taken[SLOW] < 0.5 * raw.taken[FAST]
    assert raw.taken[SLOW] + slow.drops["send_full"] * 60 == 100 * 40 * 60


def test_a_congested_way_of_raw_packets_carries_what_it_can():
    sender, raw, slow, _ = raw_ways(SLOW)
    for _ in range(500):
        sender.send(slow, train(40, 1400), 1400, 0)
    before = raw.taken[SLOW]

    for _ in range(300):
        for _ in range(40):
            raw.leave(SLOW)
        sender.send(slow, train(40, 1400), 1400, 0)

    assert raw.taken[SLOW] - before >= 280 * 40 * 1400


@pytest.mark.parametrize(
    ("count", "room", "begun"), [(40, 64, 1), (40, 39, 2), (100, 64, 1), (100, 63, 2), (1, 64, 1)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_where_the_packet_whose_departure_is_told_did_not_leave_shares_begin_anew(count, room, begun, whole):
    sender, raw, slow, fast = raw_ways(SLOW)
    for _ in range(100):
        sender.send(slow, train(40, 1400), 1400, 0)
    assert (sender.sockets[0].shares is not None, raw.begun) == (True, 1)
    raw.room, raw.sizes = room, []
    packed = [memoryview(b"".join(train(count, 1400, 700)))] if whole else train(count, 1400, 700)

    sender.send(fast, packed, 1400, 0)

    assert raw.begun >= begun
    assert (raw.begun == 1) == (begun == 1)
    assert raw.sizes == [1400] * (count - 1) + [700]
    assert fast.traffic.tx_bytes == 1400 * (count - 1) + 700


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.EMSGSIZE])
def test_a_send_of_raw_packets_that_fails_begins_shares_anew_if_it_was_to_be_told(code):
    sender, raw, slow, fast = raw_ways(SLOW)
    for _ in range(100):
        sender.send(slow, train(40, 1400), 1400, 0)
    raw.error, fast.path.due = code, 7.0

    sender.send(fast, train(3), 100, 0)

    assert raw.begun > 1
    is_full = code in {errno.EAGAIN, errno.ENOBUFS}
    reason = "too_big" if code == errno.EMSGSIZE else "send_refused"
    assert (sender.is_holding, fast.drops) == (is_full, {} if is_full else {reason: 3})
    assert fast.path.due == (0.0 if code == errno.EMSGSIZE else 7.0)
    assert fast.traffic.tx_bytes == 0


def test_an_answer_leaves_from_where_the_caller_called():
    sender, raw, _ = made(None, errno.EPERM)

    assert sender.answer(sender.sockets[0], b"reply", V4, SOURCE)
    assert not sender.answer(sender.sockets[0], b"reply", V4, SOURCE)

    assert raw.calls[0] == (5, None, SOURCE, V4)
