"""A hand-made peer: it completes handshakes correctly, and then sends what no peer should."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.crypto import noise
from overlay.crypto.cookies import CookieHolder
from overlay.wire.messages import TRANSPORT_HEADER, TYPE_RESPONSE, TYPE_TRANSPORT, Initiation, Response
from tests import packets
from tests.netns.network import PORT

if TYPE_CHECKING:
    from tests.netns.network import Host, Node

TAI64N = struct.Struct(">QI")
TAI64_EPOCH = 0x400000000000000A  # of 1970


class Speaker:
    """A UDP socket in the namespace of *node*, whose key it uses, that talks to the agent of *host*."""

    def __init__(self, node: Node, host: Host) -> None:
        self.node, self.host = node, host
        self.target = (host.outside, PORT)
        self.index = int.from_bytes(os.urandom(4), "little")
        self.counter = 0
        with node.namespace.entered():
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((node.outside, PORT))

    def close(self) -> None:
        """Close the socket."""
        self.udp.close()

    def initiation(self, *, responder: bytes | None = None) -> tuple[Initiation, noise.InitiatorState]:
        """Return a fresh initiation to the host, without MACs, and what is needed to read the answer."""
        now = time.time_ns()
        key = self.host.private_key.public if responder is None else responder
        return noise.create_initiation(
            static=self.node.private_key,
            responder_public=key,
            static_secret=self.node.private_key.exchange(key),
            timestamp=TAI64N.pack(TAI64_EPOCH + now // 10**9, now % 10**9),
            sender_index=self.index,
            entropy=os.urandom,
        )

    def with_macs(self, message: Initiation) -> bytes:
        """Return the bytes of *message* with the mac1 that the host requires."""
        return CookieHolder(self.host.private_key.public).add_macs(message.build(), 0.0)

    def shake_hands(self) -> bytes:
        """Complete a handshake, confirm it with a keepalive, and return the initiation that was sent."""
        response, patience = None, 0.2
        while response is None:  # an initiation too soon after another gets no answer
            self.index = (self.index + 1) % 2**32
            message, state = self.initiation()
            datagram = self.with_macs(message)
            self.send(datagram)
            response = self._response(patience)
            patience *= 2
        result = noise.consume_response(
            state, response, static=self.node.private_key, preshared_key=noise.NO_PRESHARED_KEY
        )
        send_key, receive_key = result.transport_keys()
        self._seal = ChaCha20Poly1305(send_key)
        self._open = ChaCha20Poly1305(receive_key)
        self.remote_index = response.sender_index
        self.counter = 0
        self.send(self.sealed(b""))
        return datagram

    def _response(self, patience: float) -> Response | None:
        """Return the response to the last initiation; None if it does not come in *patience* seconds.

        A busy agent may answer the one before it only now, and sends messages by itself.
        """
        deadline = time.monotonic() + patience
        while select.select([self.udp], [], [], max(0.0, deadline - time.monotonic()))[0]:
            answer = self.udp.recv(65536)
            if answer[0] == TYPE_RESPONSE and (told := Response.parse(answer)).receiver_index == self.index:
                return told
        return None

    def sealed(self, payload: bytes, *, counter: int | None = None, index: int | None = None) -> bytes:
        """Return a transport message; without *counter*, with the next counter."""
        if counter is None:
            counter, self.counter = self.counter, self.counter + 1
        header = TRANSPORT_HEADER.pack(TYPE_TRANSPORT, self.remote_index if index is None else index, counter)
        return header + self._seal.encrypt(bytes(4) + counter.to_bytes(8, "little"), payload, b"")

    def opened(self, datagram: bytes) -> bytes:
        """Return the payload of a transport message."""
        return self._open.decrypt(bytes(4) + datagram[8:16], datagram[16:], b"")

    def send(self, datagram: bytes) -> None:
        """Send a datagram to the host."""
        self.udp.sendto(datagram, self.target)

    def packet(self, source: str, destination: str, port: int, payload: bytes) -> bytes:
        """Return an IPv4 packet with a UDP datagram to *port*."""
        return packets.udp(payload, ports=(4000, port), source=source, destination=destination)
