from __future__ import annotations

import array
import errno
import os
import resource
import select
import socket

import pytest

from overlay.errors import PacketError
from overlay.link import codec
from overlay.link import messages as link

HANDSHAKE = link.Handshake(bytes(148), ("192.0.2.1", 1))


def test_what_is_reported_arrives(ends):
    agent, end = ends

    assert end.report(link.SessionWanted(3))

    assert codec.decode(agent.recv(100)) == link.SessionWanted(3)
    assert not end.is_full


def fill(end):
    count = 0
    while not end.is_full:
        end.report(link.SessionWanted(count))
        count += 1
    return count


def test_a_full_link_keeps_what_is_reported_in_order(ends):
    agent, end = ends
    count = fill(end)

    assert end.report(HANDSHAKE)
    assert end.report(link.SessionWanted(count))

    heard = []
    while end.is_full or select.select([agent], [], [], 0)[0]:
        heard.append(codec.decode(agent.recv(1000)))
        end.flush()
    assert heard == [*map(link.SessionWanted, range(count)), HANDSHAKE, link.SessionWanted(count)]


def test_what_waits_for_a_full_link_is_bounded_and_takes_no_handshakes_place(ends, monkeypatch):
    _, end = ends
    monkeypatch.setattr("overlay.forwarding.loop.REPORTS_WAITING", 5)
    fill(end)

    assert [end.report(link.SessionWanted(0)) for _ in range(6)] == [True] * 4 + [False] * 2
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

    assert os.read(reading, 1) == b""  # nothing holds the writing end any more
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
        end.report(link.SessionWanted(1))


def test_an_agent_that_left_unread_reports_is_gone_too(ends):
    agent, end = ends
    end.report(link.SessionWanted(1))
    agent.close()

    with pytest.raises(EOFError):
        end.receive()
