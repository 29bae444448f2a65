"""ICMP errors of the underlay about packets of unencrypted tunnels: the sender of the inner packet is informed.

To the underlay, this host is the sender.  A kernel's tunnel keeps such errors to itself, so that a client waits until
it gives up.  Errors can be forged.  So a sender is informed only if its packet is for an address that is balanced here
or behind the peer in question; it is told that the destination cannot be reached, which established connections
survive; and the rate is bounded.
"""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio

from overlay.host.sockets.icmp_errors import open_error_sockets
from overlay.link.messages import OWN, TellSender
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE
from overlay.wire.returned import Returned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from overlay.config import Node
    from overlay.link.messages import Command
    from overlay.roster import Roster
    from overlay.tunnels import Tunnel

# Ours
PAUSE = 0.1  # seconds between two reads
AT_ONCE = 32  # errors in one read; further ones wait, and of a flood most are lost
LARGEST = 2048  # bytes of a message; routers quote 548 or 1232
SHOWN = 576  # bytes of the inner packet that are passed on

_HEADERS = {4: IPV4_HEADER_SIZE, 6: IPV6_HEADER_SIZE}
_PORTS = 8  # bytes behind the IP header that an error has to show (RFC 792)


class ReturnedPackets:
    """The errors of the underlay that this host receives.  *tell* sends commands to the forwarder."""

    def __init__(
        self,
        node: Callable[[], Node],
        roster: Roster,
        tell: Callable[[Command], Awaitable[None]],
        open_sockets: Callable[[], Iterable[socket.socket]] = open_error_sockets,
    ) -> None:
        self._node, self._roster, self._tell, self._open = node, roster, tell, open_sockets
        self._wake = trio.Event()

    def wake(self) -> None:
        """Make run() look for unencrypted tunnels again: the node has changed, or is about to."""
        self._wake.set()

    async def run(self) -> None:
        """Pass errors on, forever, once there are unencrypted tunnels."""
        while not any(not each.encapsulation.is_encrypted for each in self._node().tunnels.values()):
            self._wake = trio.Event()
            await self._wake.wait()
        with contextlib.ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                for opened in self._open():
                    stack.callback(opened.close)
                    nursery.start_soon(self._follow, opened)

    async def _follow(self, opened: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(opened)
            for _ in range(AT_ONCE):
                try:
                    message = opened.recv(LARGEST)
                except BlockingIOError:
                    break
                except OSError:
                    continue
                inside = self.inside(message, opened.family)
                if inside is not None:
                    await self._tell(TellSender(inside))
            await trio.sleep(PAUSE)

    def inside(self, message: bytes, family: int) -> bytes | None:
        """Return the start of the inner packet of the one that *message*, as read from a raw socket, reports as lost.

        None if this node did not send that packet to a peer unencrypted, or *message* quotes too little of it.
        """
        version = 4 if family == socket.AF_INET else 6
        if version == 4 and message:  # with its own IP header
            message = message[(message[0] & 15) * 4 :]
        returned = Returned.parse(message, version)
        if returned is None:
            return None
        address = str(ip_address(returned.destination))
        for remote in self._roster.by_number.values():
            tunnel = self._node().tunnels.get(remote.peer.name)
            if tunnel is None or remote.endpoint is None or remote.endpoint[0] != address:
                continue
            found = _unwrap(tunnel, returned, version)
            if found is not None and self._goes_there(found, remote.number):
                return found
        return None

    def _goes_there(self, packet: bytes, number: int) -> bool:
        """Return whether *packet* may have gone to the peer *number*: it is for an address behind that peer, or for a
        service that is balanced here.
        """
        at = slice(16, 20) if packet[0] >> 4 == 4 else slice(24, 40)
        destination = ip_address(packet[at])
        node = self._node()
        if any(
            destination in service.addresses and service.is_directed_by(node.own.name)
            for service in node.table.services.values()
        ):
            return True
        return self._roster.owner(destination) == number != OWN


def _unwrap(tunnel: Tunnel, returned: Returned, version: int) -> bytes | None:
    """Return the packet inside one of *tunnel* over IP *version*; None if it is not one, or too short."""
    encapsulation = tunnel.encapsulation
    if encapsulation.is_encrypted or returned.protocol not in encapsulation.protocols.values():
        return None
    inside = returned.payload[tunnel.overheads[version] - _HEADERS[version] :][:SHOWN]
    size = _HEADERS.get(inside[0] >> 4, 0) if inside else 0
    return inside if size and len(inside) >= size + _PORTS else None
