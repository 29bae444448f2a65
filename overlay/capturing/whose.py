"""Finds the peer of a captured packet: the one whose prefixes contain its other end, or that is at its endpoint.

The kernel passes the packets of the tunnel's interface to a capture, but does not know where they go.  So they are
looked up here as in the forwarder, with the agent's table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Self

from overlay.wire.ethernet import ETHERTYPE_ARP
from peers.prefixes import PrefixMap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.wire.ip import Buffer

# Specification (RFC 791, RFC 8200, RFC 826)
ETHERNET_SIZE = 14
_SOURCE, _DESTINATION = {4: (12, 16), 6: (8, 24)}, {4: (16, 20), 6: (24, 40)}
_ARP = {True: (38, 42), False: (28, 32)}  # the target, then the sender: after the header of the frame

# Ours
REMEMBERED = 16_384  # addresses


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A peer in the agent's answer: *prefixes* lead to it, and datagrams of its tunnel come from *endpoint*."""

    number: int
    name: str
    prefixes: tuple[str, ...]
    endpoint: tuple[str, int] | None = None

    @classmethod
    def read(cls, values: Any) -> Self:
        """Return the row in *values*, of the agent's answer.  Raises ValueError for anything else."""
        try:
            endpoint = values["endpoint"]
            at = None if endpoint is None else (str(endpoint[0]), int(endpoint[1]))
            return cls(int(values["number"]), str(values["name"]), tuple(map(str, values["prefixes"])), at)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError("not a row about a peer") from error


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A virtual service in the agent's answer."""

    name: str
    addresses: tuple[str, ...]

    @classmethod
    def read(cls, values: Any) -> Self:
        """Return the row in *values*, of the agent's answer.  Raises ValueError for anything else."""
        try:
            return cls(str(values["service"]), tuple(map(str, values["addresses"])))
        except (KeyError, TypeError) as error:
            raise ValueError("not a row about a service") from error


def read_row(values: Any) -> PeerRow | ServiceRow:
    """Return the peer or service in a row of the agent's answer.  Raises ValueError for anything else."""
    is_service = isinstance(values, dict) and "service" in values
    return ServiceRow.read(values) if is_service else PeerRow.read(values)


@dataclass(slots=True)
class Whose:
    """The peers by prefix, by number and by endpoint, and the services by their virtual addresses.

    Only the director of a virtual address knows to which server, and so to which peer, a packet for it goes.
    """

    names: dict[int, str] = field(default_factory=dict)
    _services: dict[bytes, str] = field(default_factory=dict)
    _prefixes: PrefixMap[str] = field(default_factory=PrefixMap)
    _endpoints: dict[tuple[bytes, int], str] = field(default_factory=dict)
    _hosts: dict[bytes, str] = field(default_factory=dict)
    _remembered: dict[bytes, str] = field(default_factory=dict)

    def take(self, rows: Iterable[PeerRow | ServiceRow]) -> None:
        """Add these peers and services.  Raises ValueError for an invalid prefix or address."""
        for row in rows:
            if isinstance(row, ServiceRow):
                for each in row.addresses:
                    self._services[ip_address(each).packed] = row.name
                continue
            self.names[row.number] = row.name
            for prefix in row.prefixes:
                self._prefixes.insert(ip_network(prefix), row.name)
            if row.endpoint is not None:
                host = ip_address(row.endpoint[0].partition("%")[0]).packed
                self._endpoints[host, row.endpoint[1]] = self._hosts[host] = row.name
        self._remembered.clear()

    def replace(self, rows: Iterable[PeerRow | ServiceRow]) -> None:
        """Replace all peers and services by these.  Raises the errors of take(), with nothing changed."""
        other = Whose()
        other.take(rows)
        self.names.clear()
        self.names.update(other.names)
        self._services, self._prefixes = other._services, other._prefixes
        self._endpoints, self._hosts = other._endpoints, other._hosts
        self._remembered.clear()

    def service_of(self, packet: Buffer, at: int = 0) -> str:
        """Return the name of the service with an end of the IP packet that begins at *at*; empty if none has it."""
        if not self._services or len(packet) <= at:
            return ""
        version = packet[at] >> 4
        for ends in (_DESTINATION.get(version), _SOURCE.get(version)):
            if ends is not None and len(packet) >= at + ends[1]:
                name = self._services.get(bytes(packet[at + ends[0] : at + ends[1]]))
                if name:
                    return name
        return ""

    def of_packet(self, packet: Buffer, *, is_sent: bool, at: int = 0) -> str:
        """Return the name of the peer of an IP packet, or ARP message, that begins at *at*; empty if not known.

        If it *is_sent* into the tunnel, that is the peer at its destination, otherwise the one at its source.
        """
        if len(packet) <= at:
            return ""
        ends = (_DESTINATION if is_sent else _SOURCE).get(packet[at] >> 4)
        if at == ETHERNET_SIZE and packet[12] << 8 | packet[13] == ETHERTYPE_ARP:
            ends = (_ARP[is_sent][0] - at, _ARP[is_sent][1] - at)
        if ends is None or len(packet) < at + ends[1]:
            return ""
        return self.at(bytes(packet[at + ends[0] : at + ends[1]]))

    def at(self, address: bytes) -> str:
        """Return the name of the peer that an address of 4 or 16 bytes belongs to; empty if it belongs to none."""
        name = self._remembered.get(address)
        if name is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            version = 4 if len(address) == 4 else 6
            name = self._prefixes.lookup_number(version, int.from_bytes(address, "big")) or ""
            self._remembered[address] = name
        return name

    def outside(self, host: bytes, port: int) -> str:
        """Return the name of the peer with this endpoint; with any other port, or 0, of one at that address."""
        return self._endpoints.get((host, port)) or self._hosts.get(host, "")
