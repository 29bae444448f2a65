"""New sockets for a forwarder, in place of those that the previous one had.

A descriptor that is handed to a process leads to the same open file as the agent's own, so what that process does to it
stays done.  A forwarder that somebody took over must leave nothing behind for its successor.  What it can do, by the
system calls that it has (`overlay.host.seccomp`):

===================  =====================================================  ==========================================
of                   by                                                     what would become of the next forwarder
===================  =====================================================  ==========================================
a socket             setsockopt: IP_MTU_DISCOVER, IPV6_MTU_DISCOVER,        its datagrams are cut or refused
                     IPV6_MTU
a socket             setsockopt: SO_TIMESTAMPING                            each of its sends is told of, at a cost
a socket             send with MSG_MORE, a datagram without an end          what it sends is added to that, and goes
                                                                            where that was to go
the tun              nothing                                                nothing
===================  =====================================================  ==========================================

Where there is no filter it can do anything: connect a socket, which hears one address then; shut it down; have it block
or signal; attach a filter to it and lock that.  Not all of this can be taken back, and no list of it stays complete.
So sockets are never handed on: the agent opens others.  A tun cannot have a second descriptor in addition to the first;
what can be set there is set again (`Tun.restore`).

Each new socket is bound while the old one is there, so that at no moment somebody else can have its port.  The process
that had the old ones has ended by then, and copies that it had sent by the link (SCM_RIGHTS) went with the link.

Children of the agent, a script that checks a server say, have copies of all its descriptors between fork and exec,
which on a busy host takes a while.  To close a socket does not end it then.  In a group with SO_REUSEPORT it would keep
its place, the new ones would get the places behind it, and when it ends at last, the kernel puts the last of the group
in its place (``reuseport_detach_sock()`` in net/core/sock_reuseport.c): transport messages would go to the socket for
handshakes, which drops them.  So an old socket is taken out of its group before it is closed.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from overlay.host.sockets import is_beside, lanes_of, open_beside, open_raw, open_udp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.encap.encapsulation import Encapsulation
    from overlay.host.sockets import IPAddress, UnderlaySocket

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
    """Have another socket of the same kind in each place of *opened*, all those of *encapsulation*, and close those.

    *listen* is what they were opened for.  Raises HostError; then some are replaced, and it may be called again.
    """
    if not encapsulation.has_ports:
        former = list(opened)
        opened[:] = open_raw(listen, encapsulation, fwmark)
        for each in former:
            each.close()
        return
    # Those of a group share an address: the kernel tells them apart by the order in which they came, so that the first
    # of them has to be alone when its successor comes.
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
    """Close *udp*, and have it out of its group and hear nothing at once, even where a child has a copy of it.

    A socket that is bound to another interface is put into another place of the kernel's table, and by that leaves its
    group (``udp_lib_rehash()`` in net/ipv4/udp.c).
    """
    with contextlib.suppress(OSError):  # unknown to this kernel; then it ends when the child has closed it
        udp.socket.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)
    udp.close()
