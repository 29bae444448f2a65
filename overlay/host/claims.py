"""Claims of other hosts on an Ethernet link to addresses that this host has there.

A switch shows this host only broadcasts and multicasts.  A host that has an address and does not announce it is found
by asking.  The question comes from one of this host's own addresses, so that only this host gets the answer, and other
hosts do not learn from it.

The socket is separate, so that its queue may overflow without harm to that of requests for the addresses.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.host.sockets.neighbour_filters import PACKET_OUTGOING, claims_of
from overlay.host.sockets.packet_socket import PacketSocket
from overlay.wire.neighbours import Claim, question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.lan_interfaces import Interface

# Ours
BATCH = 32  # claims in one turn; of a flood, those that do not fit into the queue meanwhile are lost
QUEUE = 16 * 1024  # bytes of memory, which the kernel doubles


class Claims(PacketSocket):
    """A socket on one link that receives claims of *addresses*."""

    def __init__(self, interface: Interface, version: int) -> None:
        """Open the socket on *interface*, which is an Ethernet; it receives nothing yet.  Raises HostError."""
        failed = f"other hosts on {interface.name} that claim virtual addresses are not noticed"
        super().__init__(interface, version, claims_of(version, ()), failed, QUEUE)

    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        """Receive claims of *addresses* from now on, and of no other address.  Raises HostError."""
        if addresses == self.addresses:
            return
        self.addresses = addresses
        try:
            self._hear(claims_of(self.version, addresses))
        except OSError as error:
            raise self._error(error) from error

    def heard(self) -> Iterator[Claim]:
        """Yield the claims that have arrived, at most BATCH."""
        for frame, kind in self._frames(BATCH):
            if kind == PACKET_OUTGOING:
                continue
            with contextlib.suppress(PacketError):
                claim = Claim.parse(frame)
                if claim.address in self.addresses:
                    yield claim

    def ask(self) -> None:
        """Ask the link who has the addresses, from one of this host's own addresses; without one, ask nothing."""
        own = [each for each in self.interface.addresses if each.version == self.version]
        if self.version == 6:
            own.sort(key=lambda each: not each.is_link_local)
        for address in self.addresses if own else ():
            with contextlib.suppress(OSError):
                self._socket.send(question(address, own[0].packed, self.mac))
