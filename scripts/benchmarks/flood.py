"""A program that sends small UDP datagrams as fast as it can: python -m scripts.benchmarks.flood SECONDS SIZE HOW.

It reads its targets from stdin, "ADDRESS PORT" in each line, and takes them in turn.  HOW is

- single: sendmmsg(2), so that every datagram passes the network stack as a packet of its own, as those of an
  application with a plain send() for each do, but at a lower price for the sender;
- super: UDP_SEGMENT, super-packets of datagrams to one target, which a tun with USO may hand over whole.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import time

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h
BATCH = 64  # datagrams in one call: enough to make the call's own cost small

Target = tuple[str, int]

_libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """What struct iovec is."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """What struct msghdr is."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(Iovec)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """What struct mmsghdr is: a struct msghdr, and how much of it was sent."""

    _fields_ = (("header", Header), ("sent", ctypes.c_uint32))


def send_single(udp: socket.socket, targets: list[Target], payload: bytes, seconds: float) -> int:
    """Return how many datagrams left in *seconds*, each by itself."""
    count = max(BATCH, len(targets))
    vector = Iovec(payload, len(payload))
    names = [
        struct.pack("=H", socket.AF_INET) + port.to_bytes(2, "big") + socket.inet_aton(address) + bytes(8)
        for address, port in targets
    ]
    messages = (Message * count)()
    for number, message in enumerate(messages):
        header = message.header
        header.name = names[number % len(names)]
        header.name_length = len(names[0])
        header.vector = ctypes.pointer(vector)
        header.vector_length = 1
    size = ctypes.sizeof(Message)
    calls = [
        (ctypes.byref(messages, first * size), min(BATCH, count - first)) for first in range(0, count, BATCH)
    ]
    sent, descriptor, sendmmsg = 0, udp.fileno(), _libc.sendmmsg
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for messages_at, length in calls:
            sent += max(0, sendmmsg(descriptor, messages_at, length, 0))
    return sent


def send_super(udp: socket.socket, targets: list[Target], payload: bytes, seconds: float) -> int:
    """Return how many datagrams left in *seconds*, a batch to one target at a time."""
    udp.setsockopt(SOL_UDP, UDP_SEGMENT, len(payload))
    batch, sent = payload * BATCH, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for target in targets:
            sent += udp.sendto(batch, target) // len(payload)
    return sent


HOWS = {"single": send_single, "super": send_super}


def main(seconds: float, size: int, how: str) -> None:
    """Send, and print how many datagrams in how many seconds."""
    targets = []
    for line in sys.stdin:
        address, port = line.split()
        targets.append((address, int(port)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        began = time.monotonic()
        sent = HOWS[how](udp, targets, bytes(size), seconds)
        print(json.dumps({"sent": sent, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
