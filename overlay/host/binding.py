"""Binding UDP sockets beside and over our own earlier ones, so that at no moment anybody else holds what overlaps.

The kernel refuses a bind that overlaps with another socket, unless both have SO_REUSEADDR, whoever owns them, or both
have SO_REUSEPORT and belong to one user (socket(7); udp_lib_lport_inuse() in net/ipv4/udp.c).  SO_REUSEADDR is
therefore never set here: with it, any local user could bind a more specific address and take our datagrams.  SO_REUSEPORT
is lent to our own sockets around the one bind that overlaps them.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.wire.addresses import Sockaddr

# Specification: proc_net_udp(5)
TABLES = (Path("/proc/thread-self/net/udp"), Path("/proc/thread-self/net/udp6"))
LOCAL, INODE = 1, 9  # columns
WORD = 4  # bytes; an address stands there in hexadecimal words of the host's order


def bind(udp: socket.socket, address: Sockaddr, ours: Sequence[socket.socket] = ()) -> None:
    """Bind *udp* to *address*, which only *ours* may overlap.  Raises OSError, EADDRINUSE for anybody else's."""
    overlapped = [each for each in ours if _overlaps(each, udp.family, address)]
    if not overlapped:
        udp.bind(address)
        return
    lent = [
        each for each in (udp, *overlapped) if not each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    ]
    for each in lent:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        udp.bind(address)
    finally:
        for each in lent:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    # The kernel looks no further than to the first socket of ours.  From the bind on it refuses everybody else, so
    # whoever overlaps now was there before.
    is_wider = _is_unspecified(udp) and not all(map(_is_unspecified, overlapped))
    if is_wider and _is_shared(udp, ours):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _overlaps(udp: socket.socket, family: int, address: Sockaddr) -> bool:
    host, port, *_ = udp.getsockname()
    if udp.family != family or port != address[1]:
        return False
    hosts = {ip_address(each.partition("%")[0]) for each in (host, address[0])}
    return len(hosts) == 1 or any(each.is_unspecified for each in hosts)


def _is_unspecified(udp: socket.socket) -> bool:
    return ip_address(udp.getsockname()[0].partition("%")[0]).is_unspecified


def _is_shared(udp: socket.socket, ours: Sequence[socket.socket]) -> bool:
    """Return whether another than *ours* is bound to the port of *udp*, which has every address of its family."""
    inodes = {os.fstat(each.fileno()).st_ino for each in (udp, *ours)}
    port = udp.getsockname()[1]
    return any(
        (family, bound) == (udp.family, port) and inode not in inodes
        for family, bound, inode in _bound_sockets()
    )


def _bound_sockets() -> Iterator[tuple[int, int, int]]:
    """Yield the family in which each UDP socket of this network namespace receives, its port and its inode."""
    for path in TABLES:
        try:
            lines = path.read_text().splitlines()[1:]
        except FileNotFoundError:  # no IPv6
            continue
        for line in lines:
            fields = line.split()
            host, _, port = fields[LOCAL].partition(":")
            words = [bytes.fromhex(host[at : at + 2 * WORD]) for at in range(0, len(host), 2 * WORD)]
            packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
            address = ip_address(packed)
            is_ipv6 = isinstance(address, IPv6Address) and address.ipv4_mapped is None
            yield socket.AF_INET6 if is_ipv6 else socket.AF_INET, int(port, 16), int(fields[INODE])
