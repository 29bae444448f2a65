"""A program that sends invalid datagrams: python -m scripts.benchmarks.attacker ADDRESS PORT SECONDS RATE KIND.

RATE is in datagrams per second.  Each comes from another address of 198.18.0.0/16 (RFC 2544), so that the far kernel
does not merge them, except for the merged kinds, which are sent in trains from one address.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import time

from scripts.benchmarks.batches import BATCH, Batches, sockaddr

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h
IP_PKTINFO, IP_TRANSPARENT = 8, 19  # linux/in.h
BATCHES = 64  # different ones, sent in turn
SIZE, MERGED_SIZE = 96, 1008  # bytes of a datagram
NETWORK = int.from_bytes(socket.inet_aton("198.18.0.0"), "big")


def noise(source: random.Random, size: int) -> bytes:
    """Return bytes that do not begin like a message."""
    return bytes([source.randrange(6, 256)]) + source.randbytes(size - 1)


def transport(source: random.Random, size: int) -> bytes:
    """Return a datagram like a transport message of a session that does not exist."""
    return b"\4\0\0\0" + source.randbytes(size - 4)


def fragment(source: random.Random, size: int) -> bytes:
    """Return a datagram like a fragment of a unit, of a session that does not exist."""
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
        name = sockaddr(*target)
        self._batches = Batches(
            [
                (name, make(source, SIZE), sender((NETWORK + source.randrange(1, 65535)).to_bytes(4, "big")))
                for _ in range(BATCH * BATCHES)
            ]
        )

    def send(self, number: int) -> int:
        """Send batch *number*, and return how many datagrams were sent."""
        if self._is_merged:
            try:
                return self._udp.sendto(self._trains[number % BATCHES], self._target) // MERGED_SIZE
            except BlockingIOError:
                return 0
        return self._batches.send(self._udp.fileno(), number)


def sender(address: bytes) -> bytes:
    """Return the control data that makes a datagram leave from *address*."""
    return struct.pack("@Nii I4s4s4x", 28, 0, IP_PKTINFO, 0, address, bytes(4))


def main(address: str, port: int, seconds: float, rate: float, kind: str) -> None:
    """Send, and print the number of datagrams and of seconds."""
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
