"""Binding UDP sockets next to and over our own earlier ones, without a moment in which another user can take the port.

The kernel refuses a bind that overlaps with another socket, unless both have SO_REUSEADDR, whoever owns them, or both
have SO_REUSEPORT and belong to one user (socket(7); udp_lib_lport_inuse() in net/ipv4/udp.c).  SO_REUSEADDR is
therefore never set here: with it, any local user could bind a more specific address and take our datagrams.
SO_REUSEPORT is set on our own sockets only during the one bind that overlaps them.
"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.host.udp_table import bound_sockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.wire.addresses import Sockaddr


def bind(udp: socket.socket, address: Sockaddr, ours: Sequence[socket.socket] = ()) -> None:
    """Bind *udp* to *address*, which only *ours* may overlap.  Raises OSError: EADDRINUSE if another socket overlaps
    it.
    """
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
    # The kernel's check stops at the first of our sockets.  After the bind it refuses all others, so a socket that
    # overlaps now was there before.
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
    """Return whether a socket other than *ours* is bound to the port of *udp*, which has every address of its
    family.
    """
    inodes = {os.fstat(each.fileno()).st_ino for each in (udp, *ours)}
    port = udp.getsockname()[1]
    return any(
        (each.family, each.port) == (udp.family, port) and each.inode not in inodes
        for each in bound_sockets()
    )
