"""What the kernel knows about the path to an address, asked by a socket that never sends or receives.

The kernel reports the MTU of a path to a connected socket (IP_MTU), or to one whose datagram it refuses as too large,
by an entry with EMSGSIZE in the error queue of that socket (ip(7), IP_RECVERR).  A connected socket would be simpler,
but the forwarder must not have connect(2), which would also work for every other socket, and for paths of files as
addresses.  The kernel is therefore asked with a datagram that exceeds every MTU and is always refused.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.host.sockets.reuseport import take_nothing
from overlay.linux import (
    EXTENDED_ERROR,
    IP_MTU_DISCOVER,
    IP_RECVERR,
    IPV6_MTU_DISCOVER,
    IPV6_RECVERR,
    PMTUDISC_DO,
    PMTUDISC_OMIT,
)

if TYPE_CHECKING:
    from overlay.wire.addresses import Sockaddr

# Specification (Linux include/uapi/linux/in.h, in6.h, errqueue.h)
DISCARD = 9  # RFC 863; the kernel refuses datagrams to port 0, which is the port of endpoints of tunnels without ports
ORIGIN_LOCAL = 1  # of errors that the kernel found before anything was sent
_OPTIONS: dict[int, tuple[int, int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_RECVERR),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_RECVERR),
}

# Ours
ERRORS_BYTES = 8 * 1024  # bytes of the error queue, into which anyone who forges ICMP errors can put some
ERRORS_AT_ONCE = 64  # read from it; it holds fewer
CONTROL_BYTES = 128  # next to each: what it is, and who sent it
ATTEMPTS = 2  # to get an answer: such errors may have filled the queue

# With the headers it is larger than 65,535 bytes, which no IPv4 packet is, nor any IPv6 packet without the jumbo
# option.
_QUESTION = bytes(0xFFFF)


class PathSocket:
    """A UDP socket that looks up routes.

    It has a port from its first question on, to which nothing is delivered.  Between two questions the kernel ignores
    ICMP errors about that port, so that guessing it does not lower the MTU of a path.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._level, self._discover, self._kind = _OPTIONS[raw.family]

    def mtu_to(self, endpoint: Sockaddr) -> int:
        """Return the largest packet to *endpoint*, in bytes, according to its route and ICMP; 0 if there is no
        route.
        """
        for _ in range(ATTEMPTS):
            if not self._is_too_large(endpoint):
                return 0
            if mtu := self._told():
                return mtu
        return 0

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()

    def _is_too_large(self, endpoint: Sockaddr) -> bool:
        """Ask, and return whether the kernel refused because of the size."""
        try:
            self._raw.setsockopt(self._level, self._discover, PMTUDISC_DO)
            self._raw.sendto(_QUESTION, endpoint if endpoint[1] else (endpoint[0], DISCARD, *endpoint[2:]))
        except OSError as error:
            return error.errno == errno.EMSGSIZE
        finally:
            self._raw.setsockopt(self._level, self._discover, PMTUDISC_OMIT)
        return False

    def _told(self) -> int:
        """Return the MTU that the kernel has reported, once; 0 if it has not."""
        for _ in range(ERRORS_AT_ONCE):
            try:
                _, control, _, _ = self._raw.recvmsg(
                    1, CONTROL_BYTES, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
            except OSError:
                break
            for level, kind, data in control:
                if (level, kind) == (self._level, self._kind) and len(data) >= EXTENDED_ERROR.size:
                    number, origin, _, _, mtu, _ = EXTENDED_ERROR.unpack_from(data)
                    if (number, origin) == (errno.EMSGSIZE, ORIGIN_LOCAL):
                        return int(mtu)
        return 0


def open_paths() -> list[socket.socket]:
    """Return a socket for IPv4 and one for IPv6, as far as this host supports them.  Never raises HostError."""
    opened: list[socket.socket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            opened.append(_open(family))
        except OSError as error:
            refused = error
    if not opened:
        raise HostError(f"this host cannot open a socket: {advice.with_reason(refused)}") from refused
    return opened


def _open(family: socket.AddressFamily) -> socket.socket:
    asking = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        level, discover, errors = _OPTIONS[family]
        asking.setsockopt(level, errors, 1)
        asking.setsockopt(level, discover, PMTUDISC_OMIT)
        if family == socket.AF_INET6:
            asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ERRORS_BYTES)
        take_nothing(asking)
    except OSError:
        asking.close()
        raise
    return asking
