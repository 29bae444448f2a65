from __future__ import annotations

import errno
import math
import os
import socket
import threading

import pytest

from overlay.forwarding import native
from overlay.forwarding.lanes import OneLane
from overlay.forwarding.liveness import WANTED_INTERVAL
from overlay.forwarding.loop import Loop
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.pings import PONGS_AT_ONCE
from overlay.forwarding.underlay.sender import HELD_PAUSE
from overlay.host import clock
from overlay.link import messages as link
from overlay.session.constants import Timing
from tests import packets
from tests.overlay.forwarding.loop_bench import (
    PATIENCE,
    Running,
    connect,
    make_room,
    until,
    until_asleep,
)

HANDSHAKE = link.Handshake(bytes(148), ("192.0.2.1", 1))


def test_packets_go_from_tun_to_tun(running):
    a, b = running
    packet = packets.udp(b"hello")

    a.write(packet)
    there = b.read()
    b.write(packet)

    assert there == a.read() == [packet]


def test_a_super_packet_goes_from_tun_to_tun(running):
    a, b = running
    packet, virtio = packets.as_super_packet(packets.tcp(bytes(60_000)), 1360)
    expected = packets.kernel_segments(packet, virtio)
    make_room(a.tun, 2**20)

    a.write(packet, virtio)

    heard = []
    while len(heard) < len(expected):
        heard += b.read()
    assert heard == expected


def test_every_ping_is_answered_after_it_was_sent(running):
    a, b = running
    packet, virtio = packets.as_super_packet(packets.tcp(bytes(5000)), 1360)
    a.write(packet, virtio)  # the hello is sent with it
    b.read()
    a.write(packet)
    b.read()

    for number in range(PONGS_AT_ONCE):
        a.tell(link.PingPeer(1, number))
    told = []
    while len(told) < PONGS_AT_ONCE:
        report = a.hear()
        if isinstance(report, link.Ponged):
            told.append(report)

    assert [report.identifier for report in told] == [*range(PONGS_AT_ONCE)]
    assert all(report.seconds > 0 for report in told)


def test_the_tun_is_read_once_the_table_is_complete():
    early = Running()
    early.write(packets.udp(b"hello"))
    before = early.counters()
    early.tell(link.SetPeer(1, 0.0))
    early.tell(link.Routes([(bytes([10, 0, 0, 0]), 8, 1)], [], is_last=True))

    early.tell(link.Begin())

    assert early.hear() == link.Ready(["a note"], native.core is not None, aes=early.loop._aes)
    early.tun.settimeout(PATIENCE)
    assert early.tun.recv(1000)[30:32] == bytes([3, 1])  # no endpoint, which only a known peer can lack
    assert early.counters().peers[0].drops == {"no_endpoint": 1}
    early.close()
    assert (before.drops, early.error) == ({}, None)


def test_an_idle_loop_sleeps(running):
    a, b = running
    a.write(packets.udp(b"hello"))
    b.read()
    for each in running:
        each.counters()

    until_asleep(*running)


def test_what_is_due_is_done_although_nothing_else_happens():
    """The one that receives answers with a keepalive, and the one that receives nothing requests a session."""
    pair = [Running(Timing(keepalive_timeout=0.05, rekey_timeout=0.1, rekey_jitter=0.01)) for _ in range(2)]
    connect(*pair)
    a, b = pair

    a.write(packets.udp(b"hello"))
    b.read()
    # Of the simulated response, the keepalive that began the session, and the one that answers
    until(lambda: a.counters().peers[0].rx_bytes == 92 + 32 + 32)
    b.udp[-1].close()  # its other descriptor belongs to the loop
    b.link.close()
    b.thread.join(PATIENCE)
    a.later += WANTED_INTERVAL  # where the answer came late, it has requested one already
    a.write(packets.udp(b"nobody hears this"))
    while not isinstance(a.hear(), link.SessionWanted):
        pass

    a.close()
    b.close()
    assert (a.error, b.error) == (None, None)


def test_the_loop_sleeps_until_something_is_due_and_a_moment_where_something_is_held():
    ended = Running()
    ended.counters()
    ended.close()
    loop, sender = ended.loop, ended.loop._core.sender
    loop._clock = lambda: 100.0
    loop._poll.wait = lambda ends, deadline, *, once: (ends, deadline, once)

    assert loop._wait(math.inf, must_hurry=False) == (math.inf, math.inf, False)
    assert loop._wait(100.25, must_hurry=False) == (100.25, 100.25, False)
    assert loop._wait(100.25, must_hurry=True) == (0.0, 100.25, True)
    sender._held.add(LivePeer(1), [memoryview(b"x")], 1, 0, 0)
    assert sender.is_holding
    assert loop._wait(math.inf, must_hurry=False) == (100.0 + HELD_PAUSE, math.inf, True)


@pytest.mark.skipif(native.core is None, reason=native.missing)
def test_ordinary_packets_do_not_wake_python(running):
    a, b = running
    packet = packets.udp(b"hello")

    def there_and_back():
        a.write(packet)
        assert b.read() == [packet]
        b.write(packet)
        assert a.read() == [packet]

    for _ in range(5):  # a session is new, a route unknown, timers are not armed
        there_and_back()

    def are_undisturbed():  # but by timers: where the machine is busy, some are due meanwhile
        before, trips = (a.turns, b.turns), 20
        for _ in range(trips):
            there_and_back()
        return a.turns - before[0] < trips and b.turns - before[1] < trips

    until(are_undisturbed)


def test_what_is_dropped_is_counted_by_the_time_it_is_asked_for(running):
    a, _ = running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"nonsense", a.address)

    assert a.counters().drops["unknown_type"] == 1


def test_a_device_that_was_removed_is_read_no_more_and_the_rest_goes_on(running):
    a, b = running
    calls = []

    def removed(_):
        calls.append(1)
        raise OSError(errno.EBADFD, "File descriptor in bad state")

    a.loop._tun.readinto = removed
    a.write(packets.udp(b"wakes the loop"))
    until(lambda: calls)
    b.write(packets.udp(b"hello"))

    assert a.read() == [packets.udp(b"hello")]
    a.counters()
    assert len(calls) == 1


def test_a_device_that_fails_otherwise_ends_the_loop():
    alone = Running()
    alone.tell(link.Begin())
    alone.counters()

    def fails(_):
        raise OSError(errno.EIO, "Input/output error")

    alone.loop._tun.readinto = fails
    alone.write(packets.udp(b"wakes the loop"))
    alone.thread.join(PATIENCE)
    alone.close()

    assert isinstance(alone.error, OSError)
    assert alone.error.errno == errno.EIO


def test_garbage_on_the_link_is_counted_and_a_report_is_no_command(running):
    a, _ = running
    a.link.send(b"garbage")
    a.tell(link.SessionWanted(1))

    assert a.counters().drops["link"] == 2


@pytest.mark.slow
def test_a_table_in_many_pieces_comes_between_packets(running):
    a, b = running
    for piece in range(200):
        rows = [(bytes([11, piece, n % 256, n // 256]), 32, 1) for n in range(500)]
        a.tell(link.Routes(rows, [], is_last=piece == 199))
        if piece % 50 == 0:
            a.write(packets.udp(b"meanwhile"))
            assert b.read() == [packets.udp(b"meanwhile")]
    a.counters()

    a.write(packets.udp(b"x", destination="11.199.7.1"))

    assert b.read() == [packets.udp(b"x", destination="11.199.7.1")]


def test_commands_wait_while_the_other_table_is_brought_up_to_date(running):
    a, _ = running
    for piece in range(30):
        a.tell(link.Routes([(bytes([11, piece, 0, 0]), 16, 1)], [], is_last=False))
    a.counters()
    loop, gate, is_there, behind = a.loop, threading.Lock(), threading.Event(), []
    turn, handle = loop._turn, loop._commands.handle

    def gated():
        is_there.set()
        with gate:
            turn()

    def noted(command, *more):
        behind.append((type(command), len(loop._core.table._behind)))
        handle(command, *more)

    with gate:
        loop._turn = gated
        a.tell(link.Begin())  # which ends the turn that it waits in
        assert is_there.wait(PATIENCE)
        loop._commands.handle = noted
        a.tell(link.Routes([], [], is_last=True))
        a.tell(link.AskCounters(1))
    while not isinstance(a.hear(), link.Counters):
        pass

    assert behind[-2:] == [(link.Routes, 0), (link.AskCounters, 0)]


def test_lanes_are_halted_when_the_collector_begins_and_only_then(ends):
    halts = []

    class Lanes(OneLane):
        def halt(self):
            halts.append(1)

    loop = Loop(ends[1], clock.now, os.urandom)
    loop._lanes = Lanes()

    loop.collecting("stop", {})
    assert not halts
    loop.collecting("start", {})
    assert len(halts) == 1
    loop._poll.close()


def test_the_end_of_the_link_is_the_end(running):
    a, _ = running

    a.link.close()
    a.thread.join(PATIENCE)

    assert not a.thread.is_alive()
    assert a.error is None
