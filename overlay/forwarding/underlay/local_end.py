"""The near end of the path to a peer: the socket and the local address for sending."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from overlay.forwarding import state
from overlay.forwarding.underlay.outer_header import KIND_SHIFT, TOS, TTL_SHIFT
from overlay.linux import SOL_UDP, UDP_SEGMENT

if TYPE_CHECKING:
    from overlay.forwarding.underlay.udp_socket import Ancillary, UdpSocket
    from overlay.wire.addresses import Sockaddr

# TOS and TTL, by the number of fields that an address has
_OUTER = {
    2: ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IP, socket.IP_TTL)),
    4: ((socket.IPPROTO_IPV6, socket.IPV6_TCLASS), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)),
}

# Ours
CONTROLS = 64  # remembered before starting over: sizes of datagrams that go in trains


class LocalEnd(state.LocalEndState):
    """The local end for one peer."""

    __slots__ = ("controls", "received_source", "senders", "source")

    socket: UdpSocket | None

    def __init__(self) -> None:
        self.socket = None
        self.senders: dict[int, UdpSocket] = {}  # in its place without ports: by marks
        self.source: Ancillary = []  # the address that the peer was heard at
        self.received_source: tuple[int, bytes] | None = None  # what `source` was made from
        # `source`, TOS, TTL and cutting, made once for marks and a segment size
        self.controls: dict[tuple[int, int], Ancillary] = {}

    def send_by(self, kind: int, udp: UdpSocket) -> None:
        """Send what has marks of *kind* from *udp*, where there are no ports."""
        self.senders[kind] = udp
        self._leaves_by(kind >> KIND_SHIFT, udp)

    def forget_senders(self) -> None:
        """Let the socket be chosen again, where there are no ports."""
        for kind in self.senders:
            self._leaves_by(kind >> KIND_SHIFT, None)
        self.senders = {}

    def forget_source(self) -> None:
        """Let the host's routes choose the local address again."""
        self.answer_from([], None)

    def answer_from(self, source: Ancillary, received: tuple[int, bytes] | None) -> None:
        """Send from the local address that the peer was heard at."""
        level, kind, data = source[0] if source else (0, 0, b"")
        self._near(level, kind, data, received[1] if received is not None else b"")
        self.source, self.received_source = source, received
        self.controls = {}

    def ancillary(self, endpoint: Sockaddr | None, marks: int, segment: int = 0) -> Ancillary:
        """Return the control messages for a send to *endpoint* whose outer header has *marks*: TOS and TTL.

        The kernel cuts what is sent into datagrams of *segment* bytes, unless that is 0.
        """
        control = self.controls.get((marks, segment))
        if control is None:
            control = list(self.source)
            if endpoint is not None:
                wanted = zip(_OUTER[len(endpoint)], (marks & TOS, marks >> TTL_SHIFT & 0xFF), strict=True)
                control += [(*where, value.to_bytes(4, sys.byteorder)) for where, value in wanted if value]
            if segment:
                control.append((SOL_UDP, UDP_SEGMENT, segment.to_bytes(2, sys.byteorder)))
            if len(self.controls) >= CONTROLS:
                self.controls.clear()
            self.controls[marks, segment] = control
        return control
