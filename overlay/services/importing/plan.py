"""The result of an import before the peers are known: services, their servers and checks.

Keys and values are those of a peers file, so that its readers accept them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from peers.encapsulation import IPIP

if TYPE_CHECKING:
    from overlay.importing.places import FileLine
    from overlay.importing.toml_text import Value
    from peers.addresses import Address

Keys: TypeAlias = "tuple[tuple[str, Value], ...]"
"""Keys of a table with their values, in the order of writing."""


@dataclass(frozen=True, slots=True)
class PlannedTunnel:
    """How to reach a server that is not a peer yet: an unencrypted encapsulation, with or without checksums."""

    encapsulation: str = IPIP
    has_checksums: bool = False


IN_IPIP = PlannedTunnel()


@dataclass(frozen=True, slots=True)
class RealServer:
    """A server as the imported file names it: by an address.

    *tunnel* is for a peer that must be made for it.  *checks* must all succeed.
    """

    place: FileLine
    subject: str
    address: Address
    weight: int = 1
    upper: int = 0
    lower: int = 0
    tunnel: PlannedTunnel = IN_IPIP
    checks: tuple[Keys, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A service; empty *ports* stand for every port, *keys* are the other keys of its section."""

    place: FileLine
    subject: str
    name: str
    addresses: tuple[Address, ...]
    ports: tuple[int, ...]
    protocol: str
    keys: Keys = ()
    servers: tuple[RealServer, ...] = ()
    sorry: RealServer | None = None
    vrrp: str | None = None

    def without(self, server: RealServer) -> VirtualService:
        """Return the service without *server*."""
        sorry = None if self.sorry == server else self.sorry
        return replace(self, servers=tuple(each for each in self.servers if each != server), sorry=sorry)


@dataclass(frozen=True, slots=True)
class VrrpGroup:
    """How directors agree on one LAN: the *keys* of its section, and the *addresses* that it moves.

    *priority* belongs to the host whose file was imported.  *routers* are its own address there and those of the
    others, as far as the file names them.
    """

    place: FileLine
    subject: str
    name: str
    addresses: tuple[tuple[FileLine, str, Address], ...]
    keys: Keys
    priority: int
    routers: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that could be carried over."""

    services: tuple[VirtualService, ...]
    vrrps: tuple[VrrpGroup, ...] = ()
