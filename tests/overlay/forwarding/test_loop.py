from __future__ import annotations

import array
import dataclasses
import errno
import math
import os
import resource
import select
import socket
import threading
import time
from ipaddress import ip_address

import pytest

from overlay.crypto.cookies import CookieHolder
from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends, Role
from overlay.errors import HostError, PacketError
from overlay.forwarding import native
from overlay.forwarding.lanes import OneLane
from overlay.forwarding.loop import HANDSHAKE_BYTES, LinkEnd, Loop
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.pings import PONGS_AT_ONCE
from overlay.forwarding.underlay.sender import HELD_PAUSE
from overlay.host import clock
from overlay.host.sockets import open_raw
from overlay.link import codec
from overlay.link import messages as link
from overlay.session.constants import Timing
from overlay.session.outputs import InstallKeypair
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305
from tests import packets

CIPHERS = [AES_256_GCM, CHACHA20_POLY1305]
PATIENCE = 60.0  # seconds for what takes none; a test that waits so long has failed
HANDSHAKE = link.Handshake(bytes(148), ("192.0.2.1", 1))


def socket_pair(size=None):
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
        if size:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    return pair


@pytest.fixture
def ends():
    """The agent's end of a link, and the forwarder's."""
    agent, forwarder = socket_pair()
    yield agent, LinkEnd(forwarder)
    agent.close()
    forwarder.close()


# The link


def test_what_is_reported_arrives(ends):
    agent, end = ends

    assert end.report(link.Wanted(3))

    assert codec.decode(agent.recv(100)) == link.Wanted(3)
    assert not end.is_full


def fill(end):
    count = 0
    while not end.is_full:
        end.report(link.Wanted(count))
        count += 1
    return count


def test_a_full_link_keeps_what_is_reported_in_order(ends):
    agent, end = ends
    count = fill(end)

    assert end.report(HANDSHAKE)
    assert end.report(link.Wanted(count))

    heard = []
    while end.is_full or select.select([agent], [], [], 0)[0]:
        heard.append(codec.decode(agent.recv(1000)))
        end.flush()
    assert heard == [*map(link.Wanted, range(count)), HANDSHAKE, link.Wanted(count)]


def test_what_waits_for_a_full_link_is_bounded_and_takes_no_handshakes_place(ends, monkeypatch):
    _, end = ends
    monkeypatch.setattr("overlay.forwarding.loop.REPORTS_WAITING", 5)
    fill(end)

    assert [end.report(link.Wanted(0)) for _ in range(6)] == [True] * 4 + [False] * 2
    assert end.report(HANDSHAKE)


def test_nothing_to_read_is_none(ends):
    _, end = ends

    assert end.receive() is None


def test_a_command_arrives_with_its_descriptors(ends):
    agent, end = ends
    reading, writing = os.pipe()
    message = link.Sockets("wireguard", [link.SocketRow(2, 51820)])
    agent.sendmsg(
        [codec.encode(message)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
    )

    received, (descriptor,) = end.receive()
    os.write(descriptor, b"x")

    assert received == message
    assert os.read(reading, 1) == b"x"
    for each in (reading, writing, descriptor):
        os.close(each)


def test_garbage_is_refused_and_its_descriptors_are_closed(ends):
    agent, end = ends
    reading, writing = os.pipe()
    agent.sendmsg([b"garbage"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))])
    os.close(writing)

    with pytest.raises(PacketError):
        end.receive()

    assert os.read(reading, 1) == b""  # nobody holds the writing end any more
    os.close(reading)


def test_descriptors_that_this_process_cannot_hold_are_an_error(ends):
    agent, end = ends
    reading, writing = os.pipe()
    free = os.dup(reading)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    message = codec.encode(link.Sockets("wireguard", [link.SocketRow(2, 51820)]))
    agent.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))])

    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            end.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert raised.value.errno == errno.EMFILE
    for each in (reading, writing):
        os.close(each)


def test_as_many_descriptors_as_a_message_may_have_arrive_in_order(ends):
    agent, end = ends
    files = [os.memfd_create(f"number {number}") for number in range(codec.DESCRIPTORS)]
    agent.sendmsg(
        [codec.encode(link.Sockets("wireguard", [link.SocketRow(2, 51820)]))],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))],
    )

    _, descriptors = end.receive()

    assert [os.fstat(each).st_ino for each in descriptors] == [os.fstat(each).st_ino for each in files]
    for each in (*files, *descriptors):
        os.close(each)


def test_a_message_as_large_as_any_arrives_whole(ends):
    agent, end = ends
    agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    rows = [(bytes([10, number >> 8, number & 255, 0]), 24, 1) for number in range(3000)]
    message = link.Routes(rows, [], is_last=True)
    assert 20_000 < len(codec.encode(message)) <= codec.MESSAGE_BYTES
    agent.send(codec.encode(message))

    assert end.receive() == (message, [])


def test_an_agent_that_is_gone_is_the_end(ends):
    agent, end = ends
    agent.close()

    with pytest.raises(EOFError):
        end.receive()
    with pytest.raises(EOFError):
        end.report(link.Wanted(1))


def test_an_agent_that_left_unread_reports_is_gone_too(ends):
    agent, end = ends
    end.report(link.Wanted(1))
    agent.close()

    with pytest.raises(EOFError):
        end.receive()


# The loop, between real sockets and something like a tun


class Running:
    """A loop in a thread: its link, its tun's other end, and its UDP socket."""

    def __init__(self, timing=None):
        self.link, theirs = socket_pair()
        self.tun, device = socket_pair()
        self.udp = [self._bound()]
        start = link.Start(
            bytes(32), 1420, True, True, list(dataclasses.astuple(timing or Timing())), CIPHERS
        )
        self.later = 0.0  # seconds that its clock is ahead
        self.loop = Loop(LinkEnd(theirs), lambda: clock.now() + self.later, os.urandom)
        self.error = None
        self.turns = 0
        turn = self.loop._turn

        def counted():
            self.turns += 1
            turn()

        self.loop._turn = counted
        self._held = [theirs, device]
        self.thread = threading.Thread(target=self._run, args=(start, self._queues(device)))
        self.thread.start()
        self.use_sockets()
        self.tell(link.SetNode(1420, False, []))

    def _run(self, start, descriptors):
        try:
            self.loop.run(start, descriptors, ["a note"])
        except BaseException as error:  # noqa: BLE001  it belongs to the test
            self.error = error

    def _queues(self, device):
        """Return the descriptors of the tun: one that is read and written to."""
        return [device.detach()]

    @staticmethod
    def _bound():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        udp.setsockopt(17, 104, 1)  # UDP_GRO
        udp.bind(("127.0.0.1", 0))
        return udp

    @property
    def address(self):
        return self.udp[-1].getsockname()

    def move(self):
        self.udp.append(self._bound())
        self.use_sockets()

    def use_sockets(self):
        self.tell(link.Sockets("wireguard", [link.SocketRow(2, self.address[1])]), [self.udp[-1].fileno()])

    def tell(self, command, descriptors=()):
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        assert select.select([], [self.link], [], PATIENCE)[1]
        self.link.sendmsg([codec.encode(command)], rights)

    def hear(self):
        assert select.select([self.link], [], [], PATIENCE)[0]
        return codec.decode(self.link.recv(codec.MESSAGE_BYTES))

    def counters(self):
        """Ask for the counters and wait for them: all commands before have been carried out then."""
        self.tell(link.AskCounters(1))
        while not isinstance(report := self.hear(), link.Counters):
            pass
        return report

    def write(self, packet, virtio=packets.PLAIN):
        self.tun.send(virtio + packet)

    def read(self):
        assert select.select([self.tun], [], [], PATIENCE)[0]
        data = self.tun.recv(70_000)
        return packets.kernel_segments(data[10:], data[:10])

    def close(self):
        self.link.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        loop = self.loop  # a process would just end here
        held = [udp.raw for udp in loop._core.sender.sockets]
        for each in (self.tun, *self.udp, *self._held, *held, loop._tun._file, loop._poll):
            each.close()


def connect(*pair):
    """Make a session between two loops, whose keys no handshake made."""
    keys = b"1" * 32, b"2" * 32
    for number, (one, other) in enumerate((pair, pair[::-1])):
        one.tell(link.SetPeer(1, 0.0))
        one.tell(link.SetEndpoint(1, other.address, "configuration"))
        one.tell(link.Routes([(bytes([10, 0, 0, 0]), 8, 1)], [], is_last=True))
        send, receive = keys[number], keys[1 - number]
        made = InstallKeypair(1, 7, 7, send, receive, True, clock.now(), clock.now(), other.address)
        one.tell(made)
        one.tell(link.Begin())
        one.counters()


@pytest.fixture
def running():
    """Two loops with a session between them."""
    pair = Running(), Running()
    connect(*pair)
    yield pair
    for each in pair:
        each.close()
    assert [each.error for each in pair] == [None, None]


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
    a.tun.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)

    a.write(packet, virtio)

    heard = []
    while len(heard) < len(expected):
        heard += b.read()
    assert heard == expected


def test_every_ping_is_answered_after_it_was_sent(running):
    a, b = running
    packet, virtio = packets.as_super_packet(packets.tcp(bytes(5000)), 1360)
    a.write(packet, virtio)  # with it goes the hello
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


def until_asleep(*loops):
    """Wait until *loops* sleep: what is under way on a busy machine may still end, what spins never does."""

    def sleep():
        before = [each.turns for each in loops]
        threading.Event().wait(0.2)
        return all(
            each.turns <= then + 1 for each, then in zip(loops, before, strict=True)
        )  # the one it sleeps in

    until(sleep)


def until(condition):
    """Wait until *condition* holds; the machine is left alone in between."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        threading.Event().wait(0.02)


def test_what_is_due_is_done_although_nothing_else_happens():
    """The one who hears answers with a keepalive, and the one who hears nothing asks for a session."""
    pair = [Running(Timing(keepalive_timeout=0.05, rekey_timeout=0.1, rekey_jitter=0.01)) for _ in range(2)]
    connect(*pair)
    a, b = pair

    a.write(packets.udp(b"hello"))
    b.read()
    until(lambda: a.counters().peers[0].rx_bytes == 92 + 32)  # of the response, as it were, and the keepalive
    b.udp[-1].close()  # the other descriptor of it is the loop's
    b.link.close()
    b.thread.join(PATIENCE)
    a.write(packets.udp(b"nobody hears this"))
    while not isinstance(a.hear(), link.Wanted):
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
    sender._held.add(LivePeer(1), [memoryview(b"x")], 1, 0, 0, bounded=True)
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
    before = a.turns, b.turns
    for _ in range(20):
        there_and_back()

    assert (a.turns, b.turns) == before


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


def test_after_an_icmp_error_the_loop_sleeps_again_and_hears_what_comes(running):
    a, b = running
    a.loop._core.sender.sockets[-1].raw.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    with a._bound() as closed:
        nowhere = closed.getsockname()
    a.tell(link.SetEndpoint(1, nowhere, "configuration"))
    a.counters()

    a.write(packets.udp(b"nobody is there"))
    until(lambda: a.counters().peers[0].tx_packets)

    until_asleep(a)
    b.write(packets.udp(b"hello"))
    assert a.read() == [packets.udp(b"hello")]


def test_what_a_full_socket_did_not_take_leaves_later(running):
    a, b = running
    udp = a.loop._core.sender.sockets[-1]
    raw, sent, failures = udp.raw, [], [errno.EAGAIN, errno.ENOBUFS, errno.EAGAIN]

    class Full:
        """The socket, of which the first sends find no room."""

        def sendmsg(self, buffers, *rest):
            sent.append(len(failures))
            if failures:
                raise OSError(failures.pop(0), "no room")
            return raw.sendmsg(buffers, *rest)

        def __getattr__(self, name):
            return getattr(raw, name)

    udp.raw = Full()
    a.write(packets.udp(b"hello"))

    assert b.read() == [packets.udp(b"hello")]
    assert sent == [3, 2, 1, 0]
    udp.raw = raw


def test_new_sockets_are_used_and_the_old_ones_still_read(running):
    a, b = running
    old = a.address
    a.move()
    b.write(packets.udp(b"to the old one"))
    assert a.read() == [packets.udp(b"to the old one")]

    a.write(packets.udp(b"from the new one"))

    assert b.read() == [packets.udp(b"from the new one")]
    assert a.address != old
    assert b.counters().peers[0].endpoint == a.address


def test_a_replaced_socket_is_closed_in_time_and_its_number_may_be_another_s(running):
    a, b = running
    old = a.loop._core.sender.sockets[0].raw
    number = old.fileno()
    a.move()
    a.counters()
    assert old.fileno() == number
    a.udp.append(a._bound())

    a.later += link.REPLACED_TIME + 1
    a.counters()
    until(lambda: old.fileno() == -1)
    a.use_sockets()
    a.counters()

    assert a.loop._core.sender.sockets[-1].raw.fileno() == number
    assert number in a.loop._udp
    b.tell(link.SetEndpoint(1, a.address, "configuration"))
    b.counters()
    b.write(packets.udp(b"to the new one"))
    assert a.read() == [packets.udp(b"to the new one")]


def left(running):
    """Have the first of two loops leave its socket, which the agent keeps, and close it; return the socket."""
    a, _ = running
    (former,) = a.udp
    a.move()
    close_replaced(a)
    return former


def close_replaced(loop):
    loop.counters()
    loop.later += link.REPLACED_TIME + 1
    loop.counters()
    until(lambda: [udp.raw.getsockname() for udp in loop.loop._core.sender.sockets] == [loop.address])


def test_a_socket_that_was_closed_here_wakes_nobody_though_the_agent_still_has_it(running):
    a, _ = running
    former = left(running)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"nobody hears this", former.getsockname())
    a.counters()

    until_asleep(a)


def test_a_socket_that_was_closed_here_is_come_back_to(running):
    a, b = running
    former = left(running)

    for one in (former, a.udp[-1], former):
        a.udp.append(one)
        a.use_sockets()
        close_replaced(a)

    a.write(packets.udp(b"from the former one"))
    assert b.read() == [packets.udp(b"from the former one")]
    assert b.counters().peers[0].endpoint == former.getsockname()


def test_packets_go_from_tun_to_tun_over_raw_sockets_and_the_loop_sleeps_in_between(running):
    ends = [ip_address("127.0.0.5"), ip_address("127.0.0.6")]
    opened = []
    for each, own, far in zip(running, ends, ends[::-1], strict=True):
        try:
            raw = open_raw([own], ENCAPSULATIONS["gre"])
        except HostError as error:
            pytest.skip(str(error))
        opened += raw
        rows = [link.SocketRow(int(one.family), 0, int(one.role), one.protocol) for one in raw]
        each.tell(link.Sockets("gre", rows), [one.fileno() for one in raw])
        each.tell(link.SetPeer(2, 0.0, "gre", [], Ends(7)))
        each.tell(link.SetEndpoint(2, (str(far), 0), "configuration"))
        each.tell(link.Routes([(bytes([172, 16, 0, 0]), 12, 2)], [], is_last=True))
        each.counters()
    a, b = running
    packet = packets.udp(b"hello", source="172.16.0.1", destination="172.16.0.2")
    whole = packets.tcp(bytes(30 * 1360), source="172.16.0.1", destination="172.16.0.2")

    a.write(packet)
    assert b.read() == [packet]
    super_packet, virtio = packets.as_super_packet(whole, 1360)
    a.write(super_packet, virtio)
    expected = packets.kernel_segments(super_packet, virtio)
    found = []
    while len(found) < len(expected):
        found += b.read()
    assert found == expected
    until_asleep(a, b)
    for one in opened:
        one.close()


def test_handshakes_that_queue_by_themselves_are_passed_on_a_few_a_turn(running):
    a, _ = running
    a.udp.insert(0, a._bound())
    a.tell(
        link.Sockets("wireguard", [link.SocketRow(2, a.address[1], role) for role in (0, 1)]),
        [a.udp[1].fileno(), a.udp[0].fileno()],
    )
    a.counters()
    before, count = a.turns, 60
    called = CookieHolder(bytes(32)).add_macs(b"\1\0\0\0" + bytes(144), 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        for _ in range(count):
            caller.sendto(called, a.udp[0].getsockname())

    heard = 0
    while heard < count:
        heard += isinstance(a.hear(), link.Handshake)
        a.tell(link.Handled(1))

    most = -(-HANDSHAKE_BYTES // len(called))
    assert a.turns - before >= count // most


def test_a_socket_that_is_handed_over_again_is_the_same_and_needs_no_descriptor_more(running):
    a, b = running
    packet = packets.udp(b"hello")
    b.counters()
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        b.use_sockets()
    b.counters()

    assert len(os.listdir("/proc/self/fd")) == before
    a.write(packet)
    assert b.read() == [packet]


def test_a_socket_that_only_sends_is_not_read(running):
    a, _ = running
    sender = a._bound()
    port = sender.getsockname()[1]
    a.tell(link.Sockets("vxlan", [link.SocketRow(2, port, Role.SENDS)]), [sender.fileno()])
    a.counters()
    before = a.turns

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"nobody hears this", sender.getsockname())
    a.counters()

    assert a.turns - before < 20  # it does not spin
    with sender:
        assert sender.recv(100) == b"nobody hears this"


def test_garbage_on_the_link_is_counted_and_a_report_is_no_command(running):
    a, _ = running
    a.link.send(b"garbage")
    a.tell(link.Wanted(1))

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
