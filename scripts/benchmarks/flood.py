"""A program that sends small UDP datagrams as fast as it can: python -m scripts.benchmarks.flood SECONDS SIZE HOW.

It reads its targets from stdin, one "ADDRESS PORT" a line, and sends to them in turn.  HOW is

- single: sendmmsg(2), so that every datagram passes the network stack as a separate packet, as with a send() for each,
  but at a lower cost for the sender;
- super: UDP_SEGMENT, super-packets of datagrams to one target, which a tun with USO may hand over whole.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from scripts.benchmarks.batches import BATCH, Batches, sockaddr

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h

Target = tuple[str, int]


def send_single(udp: socket.socket, targets: list[Target], payload: bytes, seconds: float) -> int:
    """Return how many datagrams were sent in *seconds*, each separately."""
    count = max(BATCH, len(targets))
    batches = Batches([(sockaddr(*targets[number % len(targets)]), payload, b"") for number in range(count)])
    sent, descriptor = 0, udp.fileno()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number in range(len(batches)):
            sent += batches.send(descriptor, number)
    return sent


def send_super(udp: socket.socket, targets: list[Target], payload: bytes, seconds: float) -> int:
    """Return how many datagrams were sent in *seconds*, a batch to one target at a time."""
    udp.setsockopt(SOL_UDP, UDP_SEGMENT, len(payload))
    batch, sent = payload * BATCH, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for target in targets:
            sent += udp.sendto(batch, target) // len(payload)
    return sent


HOWS = {"single": send_single, "super": send_super}


def main(seconds: float, size: int, how: str) -> None:
    """Send, and print the number of datagrams and of seconds."""
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
