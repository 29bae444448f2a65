"""The near end of the way to a peer: the socket and the local address that it is sent to from."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.forwarding.underlay.outer_header import TOS, TTL_SHIFT
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


@dataclass(eq=False, slots=True)
class LocalEnd:
    """From where one peer is sent to."""

    socket: UdpSocket | None = None
    senders: dict[int, UdpSocket] = field(default_factory=dict)  # in its place without ports: by marks
    source: Ancillary = field(default_factory=list)  # the address that the peer was heard at
    received_source: object = None  # the control message that `source` was made from
    # `source`, TOS, TTL and cutting, made once for marks and a segment size
    controls: dict[tuple[int, int], Ancillary] = field(default_factory=dict)

    def forget_source(self) -> None:
        """Let the host's routes choose the local address again."""
        self.answer_from([], None)

    def answer_from(self, source: Ancillary, received: object) -> None:
        """Send from the local address that the peer was heard at."""
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
