"""A program that sends SYNs from spoofed sources, and never completes a connection.

    python -m scripts.benchmarks.syns ADDRESS PORT SECONDS

Each SYN is from another address of 198.18.0.0/15 (RFC 2544) and another port; they are sent as fast as one core can.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time

from scripts.benchmarks.batches import Batches, sockaddr

COUNT = 65_536
NETWORK = int.from_bytes(socket.inet_aton("198.18.0.0"), "big")


def checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source: bytes, port: int, target: bytes, target_port: int) -> bytes:
    """Return an IPv4 packet with a SYN; the kernel writes its IP checksum and identification."""
    tcp = struct.pack("!HHIIBBHHH", port, target_port, 1, 0, 5 << 4, 2, 64_240, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + checksum(pseudo + tcp).to_bytes(2, "big") + tcp[18:]
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, socket.IPPROTO_TCP, 0, source, target
    )
    return header + tcp


def main(address: str, port: int, seconds: float) -> None:
    """Send, and print the number of SYNs and of seconds."""
    source, target = random.Random(0), socket.inet_aton(address)
    name = sockaddr(address, 0)
    batches = Batches(
        [
            (
                name,
                syn(
                    (NETWORK + source.randrange(1, 1 << 17)).to_bytes(4, "big"),
                    source.randrange(1024, 65_536),
                    target,
                    port,
                ),
                b"",
            )
            for _ in range(COUNT)
        ]
    )
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        print("ready", flush=True)
        sent = number = 0
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            sent += batches.send(raw.fileno(), number)
            number += 1
        print(json.dumps({"sent": sent, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
