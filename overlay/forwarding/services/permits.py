"""What peers may send for the sake of virtual services, in addition to what is their own, and where answers go back
through them.

A director of a service passes on packets of any client to the service's servers; the servers answer with the service's
address as their source.  Permits are only checked for packets whose source is not their sender's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.forwarding.services.headers import upper_of
from overlay.forwarding.services.shortcuts import Shortcuts
from overlay.wire.flow_key import flow_key, parse_flow_key
from overlay.wire.ip import PROTOCOL_ICMP, PROTOCOL_ICMPV6

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.forwarding.peer import LivePeer
    from overlay.wire.ip import Buffer

# Ours
RETURNS = 16_384  # clients of whom is remembered which director their packets came from


@dataclass(frozen=True, slots=True)
class Permit:
    """What *peers*, None for all, may send to or from the ports of a service at one address."""

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

    def __init__(self, shortcuts: Shortcuts | None = None) -> None:
        self._shortcuts = shortcuts or Shortcuts()
        self._rows: tuple[tuple[bytes, bool, Permit], ...] = ()
        self._to: dict[bytes, list[Permit]] = {}
        self._from: dict[bytes, list[Permit]] = {}
        self._returns: dict[bytes, LivePeer] = {}  # by the addresses of a client and of the service
        self._last: dict[bytes, LivePeer] = {}  # who sent something to an address of a service last
        self.returning: frozenset[bytes] = frozenset()  # addresses whose answers go back through a director

    def set(self, rows: Iterable[tuple[bytes, bool, Permit]]) -> None:
        """Replace all permits by these: an address, whether it is the source's, and what is permitted."""
        found = tuple(rows)
        if found == self._rows:
            return
        self._rows, self._to, self._from = found, {}, {}
        for address, is_source, permit in found:
            (self._from if is_source else self._to).setdefault(address, []).append(permit)
        self._shortcuts.forget_admitted()
        self._returns, self._last = {}, {}
        self.returning = frozenset(
            address for address, permits in self._to.items() if any(each.returns for each in permits)
        )

    def __bool__(self) -> bool:
        """Whether anything is permitted beyond the peers' own addresses."""
        return bool(self._to or self._from)

    def admits(self, peer: LivePeer, packet: Buffer) -> bool:
        """Return whether *peer* may send *packet*, a whole IP packet whose source is not one of its own."""
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
        for found, is_request, place in (
            (self._to.get(destination), True, at + 2),
            (self._from.get(source), False, at),
        ):
            port = None
            if not upper.is_later and protocol not in {PROTOCOL_ICMP, PROTOCOL_ICMPV6}:
                port = int.from_bytes(packet[place : place + 2], "big") if len(packet) >= at + 4 else -1
            for permit in found or ():
                if permit.holds(peer.number, protocol, port):
                    if permit.returns and is_request:
                        self._remember(source, destination, peer)
                    return True
        return False

    def expect(self, peer: LivePeer, key: bytes) -> None:
        """Tell the twin that answers to the flow *key*, which is led to *peer*, may come from there, if they may."""
        protocol, client, port, address, address_port = parse_flow_key(key)
        if any(permit.holds(peer.number, protocol, address_port) for permit in self._from.get(address, ())):
            self._shortcuts.admit(peer.state, flow_key(protocol, address, address_port, client, port))

    def director_of(self, packet: Buffer) -> LivePeer | None:
        """Return the director that an answer goes back through: that which the client's packets came from.

        Where that is not known, as after a restart, it is the one that sent the last packet to that service's address.
        None if it is not such an answer.
        """
        if not self.returning:
            return None
        if packet[0] >> 4 == 4:
            source, destination = bytes(packet[12:16]), bytes(packet[16:20])
        else:
            source, destination = bytes(packet[8:24]), bytes(packet[24:40])
        if source not in self.returning:
            return None
        return self._returns.get(destination + source) or self._last.get(source)

    def delivered(self, own: LivePeer, packet: Buffer) -> None:
        """Note that this node, *own*, is the director that a packet to a server of its own came from."""
        if not self.returning:
            return
        at, middle, end = (12, 16, 20) if packet[0] >> 4 == 4 else (8, 24, 40)
        address = bytes(packet[middle:end])
        if address in self.returning:
            self._remember(bytes(packet[at:middle]), address, own)

    def _remember(self, client: bytes, address: bytes, director: LivePeer) -> None:
        key = client + address
        if (
            self._returns.get(key, director) is not director
            or self._last.get(address, director) is not director
        ):
            self._shortcuts.forget_admitted()  # those that would have to be remembered in turn
        if key not in self._returns and len(self._returns) >= RETURNS:
            self._shortcuts.forget_admitted()
            del self._returns[next(iter(self._returns))]
        self._returns[key] = self._last[address] = director
