"""Addresses of containers: which are given out from the subnets of this host, and to whom.

An address belongs to one holder at a time.  One that was just given back is the last to be given out again, because
peers, connection tables and name servers may still know its former holder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

# Specification: RFC 3021 (a /31 has no broadcast address), RFC 6164 (nor has a /127 an anycast address)
POINT_TO_POINT = 1  # bits of host part

# Specification: SPEC.md of CNI 1.1.0, for names of networks and container ids; if.h for an interface's
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
INTERFACE_NAME = re.compile(r"(?!\.{1,2}\Z)[^/:%\s\0]{1,15}")  # the kernel fills in a number for %d

# Ours
NAME_SIZE = 256  # characters; ids of containerd, CRI-O, podman and Docker have 64


class AddressError(Exception):
    """An address, or any address, cannot be given out.  The text is a sentence with the remedy."""


class FullError(AddressError):
    """All addresses of a subnet are in use: try later."""


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """Who has an address: an interface of a container in a network of the container runtime."""

    network: str
    container: str
    interface: str

    @classmethod
    def parse(cls, network: object, container: object, interface: object) -> Holder:
        """Parse the names that a runtime gives.  Raises ValueError with a sentence for anything that is not a name."""
        for what, name in (("network", network), ("container", container)):
            if not isinstance(name, str) or len(name) > NAME_SIZE or not NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r:.80} is not a name of a {what}: write at most {NAME_SIZE} letters, digits, '_', '.' "
                    "and '-', beginning with a letter or digit"
                )
        if not isinstance(interface, str) or not INTERFACE_NAME.fullmatch(interface):
            raise ValueError(f"{interface!r:.80} is not a name of an interface: it has 1 to 15 characters")
        if len(interface.encode()) > 15 or not interface.isprintable():
            raise ValueError(f"{interface!r:.80} is not a name of an interface: it has 1 to 15 bytes")
        assert isinstance(network, str)
        assert isinstance(container, str)
        return cls(network, container, interface)

    def __str__(self) -> str:
        return f"{self.interface} of {self.container[:12]} in {self.network}"


class Addresses:
    """The addresses that are given out, by their holders."""

    def __init__(
        self,
        taken: Mapping[IPAddress, Holder] | None = None,
        last: Mapping[IPNetwork, IPAddress] | None = None,
    ) -> None:
        """*last* has the address of each subnet that was given out last."""
        self.taken: dict[IPAddress, Holder] = dict(taken or {})
        self.last: dict[IPNetwork, IPAddress] = dict(last or {})

    def held_by(self, holder: Holder) -> tuple[IPAddress, ...]:
        """Return the addresses of *holder*, IPv4 first."""
        mine = [address for address, other in self.taken.items() if other == holder]
        return tuple(sorted(mine, key=lambda address: (address.version, int(address))))

    def allocate(
        self, holder: Holder, subnets: Iterable[IPNetwork], kept: Collection[IPAddress] = ()
    ) -> tuple[IPAddress, ...]:
        """Give *holder* one address of each IP version that *subnets* have; return them, IPv4 first.

        *kept* are never given out.  Raises FullError, with nothing changed, if all subnets of a version are full.
        """
        by_version: dict[int, list[IPNetwork]] = {}
        for subnet in subnets:
            by_version.setdefault(subnet.version, []).append(subnet)
        found: list[tuple[IPNetwork, IPAddress]] = []
        for _, choices in sorted(by_version.items()):
            free = next(
                ((subnet, each) for subnet in choices if (each := self._free(subnet, kept)) is not None), None
            )
            if free is None:
                listed = " and ".join(map(str, choices))
                raise FullError(
                    f"no address of {listed} is free: remove containers, or give this host a larger subnet"
                )
            found.append(free)
        for subnet, address in found:
            self.last[subnet] = address
            self.taken[address] = holder
        return tuple(address for _, address in found)

    def claim(
        self,
        holder: Holder,
        wanted: Collection[IPAddress],
        subnets: Collection[IPNetwork],
        kept: Collection[IPAddress] = (),
    ) -> None:
        """Give *holder* the addresses *wanted*.  Raises AddressError, with nothing changed, for one it cannot have."""
        for address in wanted:
            subnet = next((each for each in subnets if address in each), None)
            other = self.taken.get(address)
            if subnet is None:
                listed = " or ".join(map(str, subnets)) or "no subnet"
                raise AddressError(f"{address} is not in {listed}, which this host has for containers")
            if other is not None and other != holder:
                raise AddressError(f"{address} belongs to {other}: ask for another, or for none")
            if address in kept or is_reserved(address, subnet):
                raise AddressError(f"{address} is not for containers: ask for another, or for none")
        for address in wanted:
            self.taken[address] = holder

    def release(self, holder: Holder) -> tuple[IPAddress, ...]:
        """Take all addresses of *holder* back and return them; it may have none."""
        former = self.held_by(holder)
        for address in former:
            del self.taken[address]
        return former

    def give_back(self, holder: Holder, address: IPAddress) -> bool:
        """Take one address of *holder* back; return whether it had it."""
        had = self.taken.get(address) == holder
        if had:
            del self.taken[address]
        return had

    def _free(self, subnet: IPNetwork, kept: Collection[IPAddress]) -> IPAddress | None:
        for address in _candidates(subnet, self.last.get(subnet)):
            if address not in self.taken and address not in kept:
                return address
        return None


def is_reserved(address: IPAddress, subnet: IPNetwork) -> bool:
    """Return whether, by convention, *address* of *subnet* is not given to a container.

    These are the network's own address, the first one, which is usually a gateway's, and the broadcast address.
    """
    if subnet.max_prefixlen - subnet.prefixlen <= POINT_TO_POINT:
        return False
    first = int(subnet.network_address)
    is_broadcast = subnet.version == 4 and address == subnet.broadcast_address
    return int(address) - first in {0, 1} or is_broadcast


def _candidates(subnet: IPNetwork, last: IPAddress | None) -> Iterator[IPAddress]:
    """Yield the addresses of *subnet* that containers may have, from the one after *last*, wrapping around to it."""
    kind = IPv4Address if subnet.version == 4 else IPv6Address
    low, high = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.max_prefixlen - subnet.prefixlen > POINT_TO_POINT:
        low += 2
        high -= 1 if subnet.version == 4 else 0
    start = low if last is None else int(last) + 1
    for number in range(start, high + 1):
        yield kind(number)
    for number in range(low, min(start, high + 1)):
        yield kind(number)
