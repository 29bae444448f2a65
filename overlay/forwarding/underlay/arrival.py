"""What the kernel reports with a receive: how it was merged, how it was marked, and at which address it arrived."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

from overlay.linux import IP_PKTINFO, IPV6_PKTINFO, SOL_UDP, UDP_GRO

if TYPE_CHECKING:
    from overlay.forwarding.underlay.udp_socket import Ancillary

# Specification (Linux include/uapi/linux/in.h, in6.h)
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface index, local address, header destination
_IN6_PKTINFO = struct.Struct("=16sI")  # address, interface index


class Arrival:
    """What the kernel reported with the datagrams of one receive.  Values are made once for equal control messages."""

    __slots__ = ("ecn", "pktinfo", "segment", "source")

    def __init__(self, control: list[tuple[int, int, bytes]]) -> None:
        self.segment = 0  # bytes of each datagram but the last; 0 for a single one
        self.ecn = 0  # of the outer headers
        self.pktinfo: tuple[int, bytes] | None = None
        self.source: Ancillary = []  # control messages that answer from the address we were called at
        for level, kind, data in control:
            if level == SOL_UDP and kind == UDP_GRO:
                self.segment = int.from_bytes(data[:4], sys.byteorder)
            elif level == socket.IPPROTO_IP and kind == socket.IP_TOS:
                self.ecn = data[0] & 3
            elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_TCLASS:
                self.ecn = int.from_bytes(data[:4], sys.byteorder) & 3
            elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                _, local, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
                self.pktinfo = (4, local)
                self.source = [(level, kind, _IN_PKTINFO.pack(0, local, bytes(4)))]
            elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
                local, index = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
                scope = (
                    index if local[0] == 0xFE and local[1] >> 6 == 2 else 0
                )  # fe80::/10 (RFC 4291 section 2.4)
                self.pktinfo = (6, local)
                self.source = [(level, kind, _IN6_PKTINFO.pack(local, scope))]
