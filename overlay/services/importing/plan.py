"""What an import comes to, before it is known which peers there are: services, their servers and checks.

Keys and values are those of a peers file, so that whatever reads them reads these too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from peers.encapsulation import IPIP

if TYPE_CHECKING:
    from overlay.importing.places import Place
    from overlay.importing.toml_text import Value
    from peers.addresses import Address

Keys: TypeAlias = "tuple[tuple[str, Value], ...]"
"""Keys of a table with their values, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How a server is reached that is not yet a peer: an encapsulation in the clear, with checksums or not."""

    encapsulation: str = IPIP
    has_checksums: bool = False


IN_IPIP = Tunnel()


@dataclass(frozen=True, slots=True)
class RealServer:
    """A server as the imported file knows it: by an address.

    *tunnel* is for a peer that has to be made of it.  *checks* are all that have to succeed.
    """

    place: Place
    subject: str
    address: Address
    weight: int = 1
    upper: int = 0
    lower: int = 0
    tunnel: Tunnel = IN_IPIP
    checks: tuple[Keys, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A service; *ports* is empty for every port, *keys* are those of its section in addition to what stands here."""

    place: Place
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
    """How directors agree on one LAN: *keys* of its section, and the *addresses* that it moves.

    *priority* belongs to the host whose file was imported.  *routers* are its own address there and those of the
    others, as far as the file tells.
    """

    place: Place
    subject: str
    name: str
    addresses: tuple[tuple[Place, str, Address], ...]
    keys: Keys
    priority: int
    routers: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that could be carried over."""

    services: tuple[VirtualService, ...]
    vrrps: tuple[VrrpGroup, ...] = ()
