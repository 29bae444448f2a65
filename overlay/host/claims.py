"""What others on an Ethernet link say of addresses that this host has for it: that they are at another host.

A switch shows this host what is said to everybody alone.  Who has an address, and does not announce it, is found by
asking.  The question is from an address of this host's own, so that the answer comes to it alone: other hosts are not
led to believe it.

This has a socket of its own, whose queue may overflow without harm to those who ask for the addresses.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from overlay.errors import HostError, PacketError
from overlay.host import advice
from overlay.host.bpf import SO_ATTACH_FILTER, attach
from overlay.host.neighbour_filters import ETHERTYPES, PACKET_OUTGOING, claims_of
from overlay.wire.neighbours import Claim, question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.lan_interfaces import Interface

# Ours
LARGEST = 2048  # bytes of a frame
BATCH = 32  # claims in one turn; of a flood, what does not fit in the queue meanwhile is lost
QUEUE = 16 * 1024  # bytes of memory, which the kernel doubles


class Claims:
    """A socket on one link, at which claims of *addresses* of one family, of 4 or 16 bytes, are heard."""

    def __init__(self, interface: Interface, version: int) -> None:
        """Open the socket at *interface*, which is an Ethernet; it hears nothing yet.  Raises HostError."""
        assert interface.mac is not None
        self.interface, self.version, self.mac = interface, version, interface.mac
        self.addresses: frozenset[bytes] = frozenset()
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
        except OSError as error:
            raise self._unheard(error) from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE)
            attach(self._socket, SO_ATTACH_FILTER, claims_of(version, ()))
            self._socket.bind((interface.name, ETHERTYPES[version]))
        except OSError as error:
            self._socket.close()
            raise self._unheard(error) from error

    @property
    def is_open(self) -> bool:
        """Whether close() was not called yet."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """Return the descriptor to wait on, until heard() is to be asked."""
        return self._socket.fileno()

    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        """Hear claims of *addresses* from now on, and of no others.  Raises HostError."""
        if addresses == self.addresses:
            return
        self.addresses = addresses
        try:
            attach(self._socket, SO_ATTACH_FILTER, claims_of(self.version, addresses))
        except OSError as error:
            raise self._unheard(error) from error

    def heard(self) -> Iterator[Claim]:
        """Yield the claims that have come, at most BATCH."""
        for _ in range(BATCH):
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(LARGEST)
            except OSError:  # nothing more, or the link is down
                return
            if kind == PACKET_OUTGOING:
                continue
            with contextlib.suppress(PacketError):
                claim = Claim.parse(frame)
                if claim.address in self.addresses:
                    yield claim

    def ask(self) -> None:
        """Ask the link who has the addresses, from an address of this host's own; without one, nothing is asked."""
        own = [each for each in self.interface.addresses if each.version == self.version]
        if self.version == 6:
            own.sort(key=lambda each: not each.is_link_local)
        for address in self.addresses if own else ():
            with contextlib.suppress(OSError):
                self._socket.send(question(address, own[0].packed, self.mac))

    def close(self) -> None:
        """Hear nothing any more."""
        self._socket.close()

    def _unheard(self, error: OSError) -> HostError:
        return HostError(
            f"other hosts on {self.interface.name} that claim virtual addresses are not noticed: "
            f"{advice.with_reason(error)}"
        )
