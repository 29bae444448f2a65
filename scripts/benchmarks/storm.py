"""A program that makes many handshakes at once, as many initiators: python -m scripts.benchmarks.storm.

From stdin it reads a line of JSON: the responder's public key and address, the private keys of the initiators, the
first of their addresses, and how many initiations to prepare for each.  It prepares them, which costs more than
everything after that, and prints ``ready``.  Each further line is a storm: the number of handshakes, how many of them
may be in progress at a time, and whether the initiators have moved (1) or not (0).  The answer is a line of JSON: how
many were completed, how many cookies came, when the storm began and ended.

While the clock runs, an initiator here does what the protocol requires: it sends its initiation, and sends it again
with a mac2 once it gets a cookie.  It does not compute keys from the response, and sends nothing under them.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

from overlay.crypto import noise
from overlay.crypto.cookies import CookieHolder
from overlay.crypto.keys import PrivateKey, decode_key
from overlay.session.tai64n import Tai64nClock
from overlay.wire.messages import (
    TYPE_COOKIE_REPLY,
    TYPE_RESPONSE,
    CookieReply,
    message_type,
)

IP_PKTINFO = 8  # linux/in.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
PATIENCE = 1.0  # seconds without any answer, after which the rest counts as lost
BUFFER = 4 * 2**20  # bytes of the socket, so that no answer is lost here


class Initiator:
    """One initiator, and the initiations that it has ready."""

    def __init__(self, private_key: str, responder: bytes, count: int, clock: Tai64nClock) -> None:
        key = PrivateKey.from_base64(private_key)
        self.control: list[tuple[int, int, bytes]] = []
        self.cookies = CookieHolder(responder)
        secret = key.exchange(responder)
        self.ready: list[tuple[int, bytes]] = []
        for _ in range(count):
            index = int.from_bytes(os.urandom(4), "little")
            message, _ = noise.create_initiation(
                static=key,
                responder_public=responder,
                static_secret=secret,
                timestamp=clock.stamp(),
                sender_index=index,
                entropy=os.urandom,
            )
            # With mac1 at once; the holder must see the message again before it can read a cookie for it.
            self.ready.append((index, self.cookies.add_macs(message.build(), 0.0)))


class Crowd:
    """All initiators, behind one socket."""

    def __init__(self, told: dict[str, Any]) -> None:
        clock = Tai64nClock(time.time_ns)
        responder = decode_key(told["responder"])
        self._target = (told["address"], told["port"])
        self._initiators = [Initiator(key, responder, told["storms"], clock) for key in told["initiators"]]
        self._address = int.from_bytes(socket.inet_aton(told["first_address"]), "big")
        self.move()
        self._next = 0
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._udp.bind(("", 0))
        self._udp.setblocking(False)

    def move(self) -> None:
        """Give every initiator an address that none of them had before."""
        for initiator in self._initiators:
            packed = self._address.to_bytes(4, "big")
            initiator.control = [
                (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, packed, packed)),
            ]
            self._address += 1

    def storm(self, count: int, window: int) -> dict[str, float]:
        """Make *count* handshakes, at most *window* at a time, and return the results."""
        waiting = {}
        for _ in range(count):
            initiator = self._initiators[self._next % len(self._initiators)]
            self._next += 1
            index, datagram = initiator.ready.pop(0)
            waiting[index] = initiator, datagram
        fresh = list(waiting.items())[::-1]
        completed = cookies = under_way = 0
        began = ended = time.time()
        while waiting:
            while fresh and under_way < window:
                _, (initiator, datagram) = fresh.pop()
                self._send(initiator, datagram)
                under_way += 1
            if not select.select([self._udp], [], [], PATIENCE)[0]:
                break
            try:
                while True:
                    answer = self._udp.recv(256)
                    index = int.from_bytes(
                        answer[8:12] if answer[0] == TYPE_RESPONSE else answer[4:8], "little"
                    )
                    if index not in waiting:
                        continue
                    if message_type(answer) == TYPE_RESPONSE:
                        del waiting[index]
                        completed += 1
                        under_way -= 1
                        ended = time.time()
                    elif message_type(answer) == TYPE_COOKIE_REPLY:
                        cookies += 1
                        self._send_again(*waiting[index], answer)
            except BlockingIOError:
                pass
        return {
            "completed": completed,
            "cookies": cookies,
            "lost": len(waiting),
            "began": began,
            "ended": ended,
        }

    def _send(self, initiator: Initiator, datagram: bytes) -> None:
        self._udp.sendmsg([datagram], initiator.control, 0, self._target)

    def _send_again(self, initiator: Initiator, datagram: bytes, answer: bytes) -> None:
        holder, now = initiator.cookies, time.monotonic()
        holder.wipe()
        holder.add_macs(datagram, now)
        holder.consume_reply(CookieReply.parse(answer), now)
        self._send(initiator, holder.add_macs(datagram, now))


def main() -> None:
    """Serve until stdin ends."""
    crowd = Crowd(json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    for line in sys.stdin:
        count, window, is_moved = map(int, line.split())
        if is_moved:
            crowd.move()
        print(json.dumps(crowd.storm(count, window)), flush=True)


if __name__ == "__main__":
    main()
