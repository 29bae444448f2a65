"""The flood sends what it says: to every target, and as many as it counts."""

from __future__ import annotations

import contextlib
import ctypes
import socket

import pytest

from scripts.benchmarks.flood import BATCH, HOWS, Message


@pytest.mark.parametrize("how", HOWS)
def test_flood_reaches_every_target_with_whole_datagrams(how):
    with contextlib.ExitStack() as stack:
        receivers = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(BATCH + 6)]
        for receiver in receivers:
            receiver.bind(("127.0.0.1", 0))
            receiver.setblocking(False)
        udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))

        sent = HOWS[how](udp, [each.getsockname() for each in receivers], bytes(64), 0.1)

        assert sent >= len(receivers)
        assert [receiver.recv(100) for receiver in receivers] == [bytes(64)] * len(receivers)


def test_message_has_the_size_of_the_kernel():
    assert ctypes.sizeof(Message) == 64
