"""Ethernet frames, ARP and neighbour discovery."""

from __future__ import annotations

import contextlib

from overlay.errors import PacketError
from overlay.wire import frames as frame_payload
from overlay.wire.ethernet import ETHERNET
from overlay.wire.neighbours import Question
from tests import packets

MAC, OTHER = bytes([2, 0, 0, 0, 0, 1]), bytes([2, 0, 0, 0, 0, 2])
ARP = bytes.fromhex("0806 0001 0800 06 04 0001 020000000002 0a000002 000000000000 0a000001")


def frames(data):
    with contextlib.suppress(PacketError):
        start, end = frame_payload.parse(data)
        assert 0 <= start <= end <= len(data)
    kind, at = frame_payload.ethertype(data)
    assert not kind or at <= len(data)
    assert frame_payload.ip_start(data) <= len(data)
    if len(data) >= 14:
        claims = []
        with contextlib.suppress(PacketError):
            claims = frame_payload.read_claims(data)
        assert not claims or frame_payload.may_claim(data)


def neighbours(data):
    asked, _ = frame_payload.read_neighbour(data)
    if asked is not None:
        answer = frame_payload.build_answer(asked, MAC)
        assert frame_payload.read_neighbour(answer)[1] is not None or not any(asked.target)
    with contextlib.suppress(PacketError):
        question = Question.parse(data)
        assert question.answer(MAC)[: ETHERNET.size][:6] == question.mac


def seeds():
    yield MAC + OTHER + ARP
    yield MAC + OTHER + bytes.fromhex("81000007") + ARP
    for version, kind in ((4, b"\x08\0"), (6, b"\x86\xdd")):
        yield MAC + OTHER + kind + packets.udp(b"payload", version=version)
    yield frame_payload.build(MAC + OTHER + ARP, padding=3)
    for kind, body in (
        (135, bytes(4) + bytes(15) + b"\1" + b"\1\1" + OTHER),
        (136, b"\x60" + bytes(19) + b"\2\1" + OTHER),
    ):
        message = bytes([kind, 0, 0, 0]) + body
        yield MAC + OTHER + b"\x86\xdd" + packets.ipv6(message, protocol=58)
