"""A program that answers the handshakes of many peers: python -m scripts.benchmarks.responder.

It stands for all of them in one process and does nothing but shake hands: what it is sent under the sessions it has
made is for somebody else to count.  From stdin it reads one JSON object: the initiator's public key, the address to
bind to, and for each peer a private key and a port.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time

from overlay.crypto.keys import PrivateKey, decode_key
from overlay.errors import PacketError
from overlay.session.outputs import Transmit
from overlay.session.sessions import Sessions


def main() -> None:
    """Answer until killed."""
    told = json.load(sys.stdin)
    initiator = decode_key(told["initiator"])
    selector = selectors.DefaultSelector()
    for private_key, port in told["peers"]:
        sessions = Sessions(PrivateKey.from_base64(private_key), entropy=os.urandom, wall_ns=time.time_ns)
        sessions.add_peer(0, initiator)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((told["address"], port))
        selector.register(udp, selectors.EVENT_READ, (udp, sessions))
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            answer(*key.data)


def answer(udp: socket.socket, sessions: Sessions) -> None:
    """Take one datagram, and send what it calls for."""
    datagram, source = udp.recvfrom(2048)
    try:
        outputs = sessions.receive(datagram, source, time.monotonic())
    except PacketError:
        return
    for output in outputs:
        if isinstance(output, Transmit):
            udp.sendto(output.datagram, source)


if __name__ == "__main__":
    main()
