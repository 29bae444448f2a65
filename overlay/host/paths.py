"""What the kernel knows of the way to an address, asked by a socket that never sends or receives."""

from __future__ import annotations

import ctypes
import socket
from typing import TYPE_CHECKING

from overlay.errors import HostError

if TYPE_CHECKING:
    from overlay.wire.addresses import Sockaddr

# Specification (Linux include/uapi/linux/in.h, in6.h, socket.h)
IP_MTU, IPV6_MTU = 14, 24
_UNSPECIFIED = bytes(16)  # a socket address of the family AF_UNSPEC

_libc = ctypes.CDLL(None)


class PathSocket:
    """A UDP socket that is connected only to look up a route, and so binds no port for longer than that takes."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._option = (
            (socket.IPPROTO_IP, IP_MTU) if raw.family == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_MTU)
        )

    def mtu_to(self, endpoint: Sockaddr) -> int:
        """Return the largest packet to *endpoint*, in bytes, by its route and what ICMP told; 0 if there is no way."""
        try:
            self._raw.connect(endpoint)
            return self._raw.getsockopt(*self._option)
        except OSError:
            return 0
        finally:
            # Back to no address of its own: the next route may have another.
            _libc.connect(self._raw.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()


def open_paths() -> list[socket.socket]:
    """Return a socket for IPv4 and one for IPv6, as far as this host has them.  Raises HostError for neither."""
    opened = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            opened.append(
                socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            )
        except OSError as error:
            refused = error
    if not opened:
        raise HostError(f"this host cannot open a socket: {refused.strerror}") from refused
    return opened
