"""A program that sends what no peer would: python -m scripts.benchmarks.attacker ADDRESS PORT SECONDS RATE KIND.

RATE is in datagrams a second.  Each comes from another address, of 198.18.0.0/16 (RFC 2544), so that the far kernel
merges none with the one before, but for the merged kinds, which are sent in trains of one address.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import socket
import struct
import sys
import time

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h
IP_PKTINFO, IP_TRANSPARENT = 8, 19  # linux/in.h
BATCH = 64  # datagrams in one call, and in one train
BATCHES = 64  # different ones, sent in turn
SIZE, MERGED_SIZE = 96, 1008  # bytes of a datagram
NETWORK = int.from_bytes(socket.inet_aton("198.18.0.0"), "big")

_libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """What struct iovec is."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """What struct mmsghdr is: a struct msghdr, and how much of it was sent."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(Iovec)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_char_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


def noise(source: random.Random, size: int) -> bytes:
    """Return bytes that begin as no message does."""
    return bytes([source.randrange(6, 256)]) + source.randbytes(size - 1)


def transport(source: random.Random, size: int) -> bytes:
    """Return what looks like a transport message, of a session that there is not."""
    return b"\4\0\0\0" + source.randbytes(size - 4)


def fragment(source: random.Random, size: int) -> bytes:
    """Return what looks like a fragment of a unit, of a session that there is not."""
    return bytes([5, 0, 1, source.randrange(1, 3)]) + source.randbytes(size - 4)


KINDS = {"noise": noise, "transport": transport, "fragment": fragment}


class Flood:
    """The datagrams of one kind, ready to be sent."""

    def __init__(self, udp: socket.socket, target: tuple[str, int], kind: str, *, is_merged: bool) -> None:
        self._udp, self._target, self._is_merged = udp, target, is_merged
        source = random.Random(0)
        make = KINDS[kind]
        if is_merged:
            udp.setsockopt(SOL_UDP, UDP_SEGMENT, MERGED_SIZE)
            self._trains = [b"".join(make(source, MERGED_SIZE) for _ in range(BATCH)) for _ in range(BATCHES)]
            return
        name = struct.pack("=H", socket.AF_INET) + target[1].to_bytes(2, "big") + socket.inet_aton(target[0])
        name += bytes(8)
        self._messages = (Message * (BATCH * BATCHES))()
        for message in self._messages:
            data = make(source, SIZE)
            message.name, message.name_length = name, len(name)
            message.vector, message.vector_length = ctypes.pointer(Iovec(data, len(data))), 1
            address = (NETWORK + source.randrange(1, 65535)).to_bytes(4, "big")
            message.control = struct.pack("@Nii I4s4s4x", 28, 0, IP_PKTINFO, 0, address, bytes(4))
            message.control_length = 32

    def send(self, number: int) -> int:
        """Send batch *number*, and return how many datagrams left."""
        if self._is_merged:
            try:
                return self._udp.sendto(self._trains[number % BATCHES], self._target) // MERGED_SIZE
            except BlockingIOError:
                return 0
        at = ctypes.byref(self._messages, number % BATCHES * BATCH * ctypes.sizeof(Message))
        return max(0, int(_libc.sendmmsg(self._udp.fileno(), at, BATCH, 0)))


def main(address: str, port: int, seconds: float, rate: float, kind: str) -> None:
    """Send, and print how many datagrams in how many seconds."""
    merged, _, name = kind.rpartition(" ")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        flood = Flood(udp, (address, port), name, is_merged=bool(merged))
        print("ready", flush=True)
        sent = number = 0
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if sent > (now - began) * rate:
                time.sleep(0.0005)
                continue
            sent += flood.send(number)
            number += 1
        print(json.dumps({"sent": sent, "seconds": time.monotonic() - began, "pid": os.getpid()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
