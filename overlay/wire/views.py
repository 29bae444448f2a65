"""In-band messages about what the peers file of each end says: bodies of the kinds 11 and 12 of ``control``.

A prefix is its first address, 4 or 16 bytes, big endian, and one byte with its length.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from overlay.errors import PacketError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network
    from typing import Self

# Specification (``control``)
PREFIXES = 15  # of one peer in one message
NUMBERS = 2**64
LENGTHS = (5, 17)  # bytes of a prefix, by IP version


@dataclass(frozen=True, slots=True)
class ViewAsked:
    """A request for the ViewTold with the same *identifier*."""

    identifier: int

    def body(self) -> dict[str, Any]:
        """Return the map that read() reads."""
        return {"id": self.identifier}

    @classmethod
    def read(cls, body: dict[Any, Any]) -> Self:
        """Read the map of a message.  Raises PacketError ``control``."""
        return cls(_identifier(body))


@dataclass(frozen=True, slots=True)
class ViewTold:
    """What the sender's peers file gives the sender (*mine*) and the receiver (*yours*): PREFIXES of each at most.

    *has_more* says that the file gives the receiver more prefixes than these.
    """

    identifier: int
    mine: tuple[IPv4Network | IPv6Network, ...]
    yours: tuple[IPv4Network | IPv6Network, ...]
    has_more: bool = False

    def body(self) -> dict[str, Any]:
        """Return the map that read() reads."""
        return {
            "id": self.identifier,
            "mine": _pack(self.mine),
            "yours": _pack(self.yours),
            "more": self.has_more,
        }

    @classmethod
    def read(cls, body: dict[Any, Any]) -> Self:
        """Read the map of a message.  Raises PacketError ``control``."""
        return cls(
            _identifier(body), _unpack(body.get("mine")), _unpack(body.get("yours")), body.get("more") is True
        )


def _identifier(body: dict[Any, Any]) -> int:
    number = body.get("id")
    if type(number) is not int or not 0 <= number < NUMBERS:
        raise PacketError("control")
    return number


def _pack(prefixes: Iterable[IPv4Network | IPv6Network]) -> list[bytes]:
    return [each.network_address.packed + bytes([each.prefixlen]) for each in prefixes]


def _unpack(packed: object) -> tuple[IPv4Network | IPv6Network, ...]:
    if type(packed) is not list:
        raise PacketError("control")
    found = []
    for each in packed:
        if type(each) is not bytes or len(each) not in LENGTHS:
            raise PacketError("control")
        try:
            found.append(ip_network((each[:-1], each[-1])))
        except ValueError:
            raise PacketError("control") from None
    return tuple(found)
