"""How handshake messages came in, so that their answers leave the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from overlay.forwarding.underlay.arrival import Arrival
    from overlay.forwarding.underlay.udp_socket import Ancillary, UdpSocket
    from overlay.wire.addresses import Sockaddr

# Ours
CALLERS = (
    2048  # handshakes whose way back is remembered, the oldest forgotten first: more than wait on the link
)


class Caller(NamedTuple):
    """How one handshake message came in."""

    udp: UdpSocket
    source: Ancillary
    pktinfo: tuple[int, bytes] | None


class Callers:
    """The most recent callers, by address."""

    def __init__(self) -> None:
        self._by_address: dict[Sockaddr, Caller] = {}

    def remember(self, address: Sockaddr, udp: UdpSocket, arrival: Arrival) -> None:
        """Note a call from *address*, through *udp*; if there are many, the oldest is forgotten for it."""
        self._by_address.pop(address, None)  # it is the most recent now
        if len(self._by_address) >= CALLERS:
            del self._by_address[next(iter(self._by_address))]
        self._by_address[address] = Caller(udp, arrival.source, arrival.pktinfo)

    def find(self, address: Sockaddr, sockets: list[UdpSocket]) -> Caller | None:
        """Return how the last message from *address* came in, if by one of *sockets*."""
        caller = self._by_address.get(address)
        return caller if caller is not None and caller.udp in sockets else None
