"""RawCarrier against the kernel, on a loopback of its own: each raw socket there gets all that is sent."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.underlay.mmsg import (
    FIRST_ROW,
    LARGEST_ROW,
    MESSAGES,
    RawCarrier,
    Receipt,
    pack_sockaddr,
    parse_sockaddr,
)
from overlay.forwarding.underlay.outer_header import TTL_SHIFT
from overlay.host.sockets.queues import SocketQueues

PROTOCOL = 253  # RFC 3692: for experiments
IPV4, IPV6 = ("127.0.0.1", 0), ("::1", 0, 0, 0)


@pytest.fixture(params=[IPV4, IPV6], ids=["IPv4", "IPv6"])
def loopback(request, lab):
    """A carrier, its own address, and its socket."""
    family = socket.AF_INET if request.param is IPV4 else socket.AF_INET6
    with lab.namespace("host").entered():
        raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOL)
    with raw:
        if request.param is IPV6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        raw.bind(request.param)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield RawCarrier(raw.fileno(), family), request.param, raw


def received(carrier, address, receipt):
    """Return what *carrier* has: payload, TOS and TTL of each packet; no TTL over IPv6."""
    count = carrier.receive(receipt)
    found = []
    for row in range(count):
        size = int(receipt.sizes[row])
        at = row * receipt.stride
        packet = bytes(receipt.packet(row) if size > receipt.stride else receipt.view[at : at + size])
        assert parse_sockaddr(receipt.names[row].tobytes()) == address
        if address is IPV4:
            found.append((packet[20:], packet[1], packet[8]))
        else:
            found.append((packet, int(receipt.traffic_classes[row]), None))
    return found


def test_one_buffer_leaves_as_packets_of_one_size_and_a_shorter_last(loopback):
    carrier, address, _ = loopback
    data = memoryview(bytearray(b"a" * 1000 + b"b" * 1000 + b"c" * 7))

    assert carrier.send([data], 1000, 0, address) == 3

    assert [payload for payload, *_ in received(carrier, address, Receipt())] == [
        b"a" * 1000,
        b"b" * 1000,
        b"c" * 7,
    ]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_each_of_several_buffers_leaves_as_a_packet(loopback, kind):
    carrier, address, _ = loopback
    sent = [kind(b"x" * size) for size in (1, 1500, 30, 8000)]

    assert carrier.send([memoryview(each) for each in sent], 8000, 0, address) == 4

    assert [payload for payload, *_ in received(carrier, address, Receipt())] == sent


def test_each_send_has_its_marks(loopback):
    carrier, address, _ = loopback
    payload = [memoryview(bytearray(b"x"))]

    for tos, ttl in ((0, 0), (0xB9, 7), (3, 0), (0, 9), (0, 0)):
        carrier.send(payload, 1, tos | ttl << TTL_SHIFT, address)

    found = [row[1:] for row in received(carrier, address, Receipt())]
    assert [tos for tos, _ in found] == [0, 0xB9, 3, 0, 0]
    assert address is IPV6 or [ttl for _, ttl in found] == [64, 7, 64, 9, 64]


def test_no_more_leave_at_once_than_one_call_takes(loopback):
    carrier, address, _ = loopback
    data = memoryview(bytearray(10 * (MESSAGES + 5)))

    assert carrier.send([data], 10, 0, address) == MESSAGES
    assert carrier.send([data[:1]] * (MESSAGES + 5), 10, 0, address) == MESSAGES


@pytest.mark.parametrize("size", [2, 777, 1500, 1501, 9000, 100_000])
def test_rows_fit_what_they_are_told_and_longer_packets_come_whole(loopback, size):
    carrier, address, _ = loopback
    receipt = Receipt()
    assert receipt.stride == FIRST_ROW
    receipt.fit(size)
    sent = [bytes([number]) * length for number, length in enumerate((3, 1500, 9000, 20, 60_000, 1))]

    for _ in range(2):
        carrier.send([memoryview(each) for each in sent], 65_000, 0, address)
        assert [payload for payload, *_ in received(carrier, address, receipt)] == sent

    assert receipt.stride == min(size + (size & 1), LARGEST_ROW)


@pytest.mark.parametrize("count", [1, 3, MESSAGES])
def test_the_kernel_tells_when_the_last_packet_of_a_send_has_left(loopback, count):
    carrier, address, raw = loopback
    queues = SocketQueues(raw)
    if not queues.number_sends():
        pytest.skip("this kernel numbers no sends")
    buffers = [memoryview(bytearray(b"x"))] * count
    departed = []

    for marks, tells in ((0, True), (0, False), (7, True), (0, True)):
        assert carrier.send(buffers, 1, marks, address, tells=tells) == count
        departed.append(len(queues.departed()))

    assert departed == [1, 0, 1, 1]


def test_nothing_to_receive_is_blocking_and_a_failure_names_itself(loopback):
    carrier, address, _ = loopback

    with pytest.raises(BlockingIOError):
        carrier.receive(Receipt())
    with pytest.raises(OSError, match="too long") as raised:
        carrier.send([memoryview(bytearray(70_000))], 70_000, 0, address)
    assert raised.value.errno == errno.EMSGSIZE


def test_what_came_before_a_failure_has_left(loopback):
    carrier, address, _ = loopback
    buffers = [memoryview(bytearray(size)) for size in (10, 70_000, 10)]

    assert carrier.send(buffers, 70_000, 0, address) == 1
    with pytest.raises(OSError, match="too long"):
        carrier.send(buffers[1:], 70_000, 0, address)


@given(st.ip_addresses(), st.integers(0, 2**31))
def test_an_address_reads_back_from_its_bytes(address, scope):
    sockaddr = (str(address), 0) if address.version == 4 else (str(address), 0, 0, scope)

    assert parse_sockaddr(pack_sockaddr(sockaddr).ljust(28, b"\0")) == sockaddr


def test_addresses_are_laid_out_as_the_kernel_has_them():
    assert pack_sockaddr(("192.0.2.1", 9)) == b"\2\0\0\0\xc0\0\2\1" + bytes(8)
    assert pack_sockaddr(("fe80::1", 9, 0, 3)) == b"\x0a\0\0\0\0\0\0\0\xfe\x80" + bytes(13) + b"\1\3\0\0\0"


@pytest.mark.parametrize("size", [FIRST_ROW, LARGEST_ROW])
def test_every_row_lies_in_the_buffer_that_the_kernel_writes_to(size):
    receipt = Receipt()

    receipt.fit(size)

    assert receipt.stride >= size
    assert MESSAGES * receipt.stride <= len(receipt.view)


def test_each_row_of_a_receipt_has_its_place_and_one_for_what_does_not_fit_and_nothing_else():
    """A third would be read beyond the last row, and the kernel told to write wherever that points."""
    assert {message.header.buffer_count for message in Receipt()._messages} == {2}
