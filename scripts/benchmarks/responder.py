"""A program that answers the handshakes of many peers: python -m scripts.benchmarks.responder.

It stands for all of them in one process and only shakes hands.  From stdin it reads one JSON object: the initiator's
public key, the address to bind to, and for each peer a private key and a port.  It prints ``ready``, and then ``all N``
whenever each peer has received data under a session that is new since the last such line; N is the number of
initiations in between.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import sys
import time

from overlay.crypto.keys import PrivateKey, decode_key
from overlay.errors import PacketError
from overlay.session.outputs import Transmit
from overlay.session.sessions import Sessions
from overlay.wire.messages import TYPE_INITIATION, TYPE_TRANSPORT, message_type

DESCRIPTORS = 100  # besides the sockets


class Responder:
    """One of the peers for which this program answers."""

    def __init__(self, private_key: str, initiator: bytes, address: tuple[str, int]) -> None:
        self.sessions = Sessions(
            PrivateKey.from_base64(private_key), entropy=os.urandom, wall_ns=time.time_ns
        )
        self.sessions.add_peer(0, initiator)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(address)
        self.index = b""  # of the session of the last data

    def answer(self) -> tuple[int, bool]:
        """Handle one datagram, and send the answer to it, if any.

        Returns the type of the message, and whether it is the first data under a session.
        """
        datagram, source = self.udp.recvfrom(2048)
        kind = message_type(datagram)
        if kind == TYPE_TRANSPORT:
            is_new, self.index = datagram[4:8] != self.index, datagram[4:8]
            return kind, is_new
        try:
            outputs = self.sessions.receive(datagram, source, time.monotonic())
        except PacketError:
            return kind, False
        for output in outputs:
            if isinstance(output, Transmit):
                self.udp.sendto(output.datagram, source)
        return kind, False


def main() -> None:
    """Answer until killed."""
    told = json.load(sys.stdin)
    initiator = decode_key(told["initiator"])
    most = len(told["peers"]) + DESCRIPTORS
    if most > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    selector = selectors.DefaultSelector()
    for private_key, port in told["peers"]:
        peer = Responder(private_key, initiator, (told["address"], port))
        selector.register(peer.udp, selectors.EVENT_READ, peer)
    print("ready", flush=True)
    initiations, heard = 0, set()
    while True:
        for key, _ in selector.select():
            kind, is_new = key.data.answer()
            initiations += kind == TYPE_INITIATION
            if is_new:
                heard.add(key.fd)
        if len(heard) == len(told["peers"]):
            print("all", initiations, flush=True)
            initiations, heard = 0, set()


if __name__ == "__main__":
    main()
