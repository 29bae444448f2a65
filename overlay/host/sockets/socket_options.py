"""Options of the agent's sockets: TTL, mark, buffers, and binding to an address that is not there yet."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.host.process.privileges import Capability

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

# Specification: linux/in.h; Python does not name them
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # the latter since Linux 4.15
SYSTEM_TTL = -1


def bind_early(underlay: socket.socket, address: IPv4Address | IPv6Address) -> None:
    """Allow *underlay* to be bound to an address that the host does not have yet, as at boot; it receives once the host
    has it.
    """
    if not address.is_unspecified:
        level, option = (
            (socket.IPPROTO_IP, IP_FREEBIND) if address.version == 4 else (socket.IPPROTO_IPV6, IPV6_FREEBIND)
        )
        underlay.setsockopt(level, option, 1)


def set_ttl(underlay: socket.socket, ttl: int | None) -> None:
    """Send from *underlay* with *ttl* as TTL or hop limit from now on; None for the system's default.

    Works also on a socket that the forwarder has.
    """
    value = SYSTEM_TTL if ttl is None else ttl
    if underlay.family == socket.AF_INET:
        underlay.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, value)
    else:
        underlay.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, value)


def set_mark(underlay: socket.socket, fwmark: int) -> None:
    """Mark what *underlay* sends with *fwmark*; 0 for no mark.  Works also on a socket that the forwarder has."""
    try:
        underlay.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", fwmark))
    except OSError as error:
        raise HostError(
            f"fwmark {fwmark:#x} could not be set: {advice.gain(Capability.NET_ADMIN)}"
        ) from error


def try_set(udp: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option to *value*, and return whether the kernel accepted it."""
    try:
        udp.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def enlarge(udp: socket.socket, forced: int, plain: int, size: int) -> None:
    """Set a buffer to *size* with the privilege, otherwise to what net.core.[rw]mem_max allows; never make it
    smaller.
    """
    if not try_set(udp, socket.SOL_SOCKET, forced, size) and udp.getsockopt(socket.SOL_SOCKET, plain) < size:
        try_set(udp, socket.SOL_SOCKET, plain, size)
