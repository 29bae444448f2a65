"""What peers may send for the sake of virtual services, beside what is their own.

A director of a service sends what clients sent, whoever they are, to the service's servers; the servers answer with the
service's address as their source.  This is looked at for packets alone whose source is not their sender's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.forwarding.services.headers import upper_of
from overlay.wire.ip import PROTOCOL_ICMP, PROTOCOL_ICMPV6

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.forwarding.peer import Peer
    from overlay.wire.ip import Buffer

# Ours
RETURNS = 16_384  # clients of whom is remembered which director their packets came from


@dataclass(frozen=True, slots=True)
class Permit:
    """What *peers*, or for None all, may send to or from the ports of a service at one address."""

    peers: frozenset[int] | None
    protocols: frozenset[int]
    ports: tuple[tuple[int, int], ...]
    returns: bool = False

    def holds(self, peer: int, protocol: int, port: int | None) -> bool:
        """Return whether *peer* may; *port* is None for what has none: later fragments, and ICMP."""
        if self.peers is not None and peer not in self.peers:
            return False
        if port is None:
            return protocol in self.protocols or protocol in {PROTOCOL_ICMP, PROTOCOL_ICMPV6}
        return protocol in self.protocols and (
            not self.ports or any(first <= port <= last for first, last in self.ports)
        )


class Permits:
    """All permits of this node."""

    def __init__(self) -> None:
        self._to: dict[bytes, list[Permit]] = {}
        self._from: dict[bytes, list[Permit]] = {}
        self._returns: dict[bytes, Peer] = {}  # by the address of a client

    def set(self, rows: Iterable[tuple[bytes, bool, Permit]]) -> None:
        """Have these in place of all others: an address, whether it is that of the source, and what is permitted."""
        self._to, self._from = {}, {}
        for address, is_source, permit in rows:
            (self._from if is_source else self._to).setdefault(address, []).append(permit)
        self._returns = {}

    def admits(self, peer: Peer, packet: Buffer) -> bool:
        """Return whether *peer* may send *packet*, a whole IP packet whose source is none of its own."""
        if not self._to and not self._from:
            return False
        if packet[0] >> 4 == 4:
            source, destination = bytes(packet[12:16]), bytes(packet[16:20])
        else:
            source, destination = bytes(packet[8:24]), bytes(packet[24:40])
        upper = upper_of(memoryview(packet))
        if upper is None:
            return False
        at, protocol = upper.at, upper.protocol
        for found, client, place in (
            (self._to.get(destination), source, at + 2),
            (self._from.get(source), None, at),
        ):
            port = None
            if not upper.is_later and protocol not in {PROTOCOL_ICMP, PROTOCOL_ICMPV6}:
                port = int.from_bytes(packet[place : place + 2], "big") if len(packet) >= at + 4 else -1
            for permit in found or ():
                if permit.holds(peer.number, protocol, port):
                    if permit.returns and client is not None:
                        self._remember(client, peer)
                    return True
        return False

    def director_of(self, packet: Buffer) -> Peer | None:
        """Return the peer that a client's packets came from, for an answer that goes back that way; None for others."""
        if not self._returns:
            return None
        return self._returns.get(bytes(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]))

    def _remember(self, client: bytes, director: Peer) -> None:
        if client not in self._returns and len(self._returns) >= RETURNS:
            del self._returns[next(iter(self._returns))]
        self._returns[client] = director
