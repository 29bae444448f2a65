from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address

import pytest

from overlay.crypto.cookies import CookieHolder
from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends, Role
from overlay.errors import HostError
from overlay.forwarding.loop import HANDSHAKE_BYTES
from overlay.host.sockets.underlay import open_raw
from overlay.link import messages as link
from tests import packets
from tests.overlay.forwarding.loop_bench import (
    until,
    until_asleep,
)
from tests.ports import refusing_port

HANDSHAKE = link.Handshake(bytes(148), ("192.0.2.1", 1))


def test_after_an_icmp_error_the_loop_sleeps_again_and_hears_what_comes(running):
    a, b = running
    a.loop._core.sender.sockets[-1].raw.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    with refusing_port(socket.SOCK_DGRAM) as nowhere:
        a.tell(link.SetEndpoint(1, ("127.0.0.1", nowhere), "configuration"))
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
        """The socket, whose first sends find no room."""

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
    """Make the first of two loops leave its socket, which the agent keeps, and close it; return the socket."""
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

    assert len(os.listdir("/proc/self/fd")) <= before  # garbage of other tests may have closed some
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
