"""The flood sends what it reports: to every target, and as many datagrams as it counts."""

from __future__ import annotations

import contextlib
import ctypes
import socket

import pytest

from scripts.benchmarks.attacker import IP_TRANSPARENT, KINDS, Flood
from scripts.benchmarks.batches import BATCH, Message
from scripts.benchmarks.flood import HOWS


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


@pytest.mark.parametrize("kind", KINDS)
def test_attacker_sends_whole_batches(kind):
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as udp:
        receiver.bind(("127.0.0.1", 0))
        if not may_take_any_address(udp):
            pytest.skip("only root may send from any address")
        flood = Flood(udp, receiver.getsockname(), kind, is_merged=False)

        sent = [flood.send(number) for number in range(3)]

        assert sent == [BATCH] * 3


def may_take_any_address(udp):
    try:
        udp.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    except PermissionError:
        return False
    return True
