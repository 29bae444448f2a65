"""Payloads in the clear, of every encapsulation that reads them."""

from __future__ import annotations

import contextlib

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.errors import PacketError
from overlay.wire.ip import packet_length
from tests import packets
from tests.fuzz.targets.frames import ARP, MAC, OTHER

CLEAR = {name: each.clear for name, each in ENCAPSULATIONS.items() if each.clear is not None}
ENDS = Ends(7, MAC, OTHER, has_checksum=True, has_sequence=True)


def encapsulations(data):
    for clear in CLEAR.values():
        with contextlib.suppress(PacketError):
            start, end, _ = clear.strip(data)
            assert end - start == packet_length(data[start:])
            if clear.sequence is not None:
                clear.sequence(data)
            if clear.frames is not None:
                clear.frames.admit(data, ENDS)
        if clear.frames is not None:
            found = clear.frames.question(data)
            if found is not None:
                assert clear.frames.question(clear.frames.answer(found[1], ENDS)) is None


def seeds():
    for clear in CLEAR.values():
        for version, before in clear.prefix(ENDS).items():
            payload = bytearray(before + packets.udp(b"payload", version=version))
            finish = clear.finisher(ENDS)
            if finish is not None:
                finish(memoryview(payload), 0)
            yield bytes(payload)
    yield bytes.fromhex("0800000000000700") + b"\xff" * 6 + OTHER + ARP
