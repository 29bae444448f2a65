"""New sockets for a forwarder, in place of those that the previous one had.

A descriptor that is handed to a process refers to the same open file as the agent's own, so what that process does to
it lasts.  A forwarder that an attacker took over must leave nothing behind for its successor.  What it can do with the
system calls that it may make (`overlay.host.process.seccomp`):

===================  =====================================================  ==========================================
of                   by                                                     what would become of the next forwarder
===================  =====================================================  ==========================================
a socket             setsockopt: IP_MTU_DISCOVER, IPV6_MTU_DISCOVER,        its datagrams are cut or refused
                     IPV6_MTU
a socket             setsockopt: SO_TIMESTAMPING                            each of its sends is reported, at a cost
a socket             send with MSG_MORE, a datagram without an end          what it sends is added to that, and goes
                                                                            where that was to go
the tun              nothing                                                nothing
===================  =====================================================  ==========================================

Without a filter it can do anything: connect a socket, which then receives from one address only; shut it down; make it
block or signal; attach a filter to it and lock that.  Not all of this can be undone, and no list of it stays complete.
So sockets are never handed on: the agent opens new ones.  A tun cannot have a second descriptor, so everything that can
be set there is set again (`Tun.restore`).

Each new socket is bound while the old one exists, so that nobody else can take its port at any moment.  The process
that had the old ones has ended by then, and copies that it had sent over the link (SCM_RIGHTS) are gone with the link.

Children of the agent, such as a script that checks a server, have copies of all its descriptors between fork and exec,
which takes a while on a busy host.  Closing a socket does not end it then.  In a group with SO_REUSEPORT it would keep
its place, the new ones would get the places behind it, and when it finally ends, the kernel puts the last of the group
in its place (``reuseport_detach_sock()`` in net/core/sock_reuseport.c): transport messages would go to the socket for
handshakes, which drops them.  So an old socket is taken out of its group before it is closed.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from overlay.host.sockets.underlay import is_beside, lanes_of, open_beside, open_raw, open_udp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.encap.encapsulation import Encapsulation
    from overlay.host.sockets.underlay import IPAddress, UnderlaySocket

# Specification: asm-generic/socket.h
SO_BINDTOIFINDEX = 62  # since Linux 5.0

# Ours
NO_INTERFACE = 0x7FFFFFFF  # the largest index, which no interface has


def renew(
    opened: list[UnderlaySocket],
    encapsulation: Encapsulation,
    listen: Sequence[IPAddress],
    fwmark: int | None,
) -> None:
    """Replace each socket in *opened*, all those of *encapsulation*, by a new one of the same kind, and close it.

    *listen* is what they were opened for.  Raises HostError; then some are replaced, and it may be called again.
    """
    if not encapsulation.has_ports:
        former = list(opened)
        opened[:] = open_raw(listen, encapsulation, fwmark)
        for each in former:
            each.close()
        return
    # The sockets of a group share an address, and the kernel tells them apart by the order in which they came: the
    # first must be alone when its successor comes.
    lanes = lanes_of(opened)
    for each in [udp for udp in opened if is_beside(udp)]:
        opened.remove(each)
        _end(each)
    for place, each in enumerate(opened):
        name, role = encapsulation.name, each.role
        opened[place] = open_udp(each.address, each.port, fwmark, opened, encapsulation=name, role=role)
        _end(each)
    if encapsulation.is_encrypted:
        for udp in list(opened):
            opened += open_beside(udp, fwmark, opened, lanes)


def _end(udp: UnderlaySocket) -> None:
    """Close *udp*, and make it leave its group and receive nothing at once, even if a child has a copy of it.

    Binding a socket to another interface moves it in the kernel's table, which removes it from its group
    (``udp_lib_rehash()`` in net/ipv4/udp.c).
    """
    with contextlib.suppress(OSError):  # unknown to this kernel; then it ends when the child has closed it
        udp.socket.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)
    udp.close()
