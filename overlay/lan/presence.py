"""The addresses that this host has on its links: requests for them are answered, and they are announced."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host.claims import Claims
from overlay.host.neighbours import Neighbours
from overlay.lan.conflicts import Conflict, Conflicts
from overlay.services.announcements import Announcements

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from overlay.host.netlink.lan_interfaces import Interface
    from overlay.host.plan import IPAddress


@dataclass(slots=True)
class _Held:
    """Addresses that came here together, by the interface (name or index) on whose link they are."""

    places: Mapping[str | int, frozenset[IPAddress]]
    schedule: Announcements = field(default_factory=Announcements)


class LanPresence:
    """The addresses that are held, under keys of the caller, and the sockets for them.

    Nothing happens before look(), which must be called after each change, and when the interfaces change.
    """

    def __init__(
        self,
        opened: Callable[[Neighbours | Claims], None],
        closing: Callable[[Neighbours | Claims], None],
    ) -> None:
        """*opened* and *closing* are called with each socket to wait on from now on, or no longer."""
        self._opened, self._closing = opened, closing
        self._held: dict[Hashable, _Held] = {}
        # By interface and IP version
        self._sockets: dict[tuple[str | int, int], Neighbours] = {}
        self._claims: dict[tuple[str | int, int], Claims] = {}
        self._macs: frozenset[bytes] = frozenset()  # of this host's interfaces, which may be on one link
        self._conflicts = Conflicts()
        self.troubles: tuple[str, ...] = ()

    def hold(self, key: Hashable, places: Mapping[str | int, frozenset[IPAddress]], now: float) -> None:
        """Hold the addresses *places*, by link, in addition to those of other keys; new ones are announced."""
        held = self._held.get(key)
        if held is not None and held.places == places:
            return
        self._held[key] = fresh = _Held(places)
        fresh.schedule.begin(now)

    def release(self, key: Hashable) -> None:
        """Release the addresses that are held under *key*, if any."""
        self._held.pop(key, None)

    def places(self) -> set[str | int]:
        """Return the interfaces that are needed."""
        return {place for held in self._held.values() for place in held.places}

    def look(self, interfaces: Mapping[str | int, Interface | None], now: float) -> None:
        """Open the sockets that are needed, given the state of the *interfaces*; what fails is in `troubles`."""
        troubles: dict[str, None] = {}
        wanted = self._wanted()
        self._macs = frozenset(each.mac for each in interfaces.values() if each is not None and each.mac)
        for key in (self._sockets.keys() | self._claims.keys()) - wanted.keys():
            self._close(key)
        for key, addresses in wanted.items():
            interface = _usable(interfaces.get(key[0]))
            found = self._sockets.get(key)
            if found is not None and (interface is None or not _is_same(found.interface, interface)):
                self._close(key)
                found = None
            if interface is None:
                continue
            try:
                if found is None:
                    found = self._sockets[key] = Neighbours(interface, key[1])
                    self._opened(found)
                    self._begin_again(key[0], now)  # hosts on that link do not know it, or no longer do
                found.set_addresses(addresses)
                self._listen(key, interface, addresses)
            except HostError as error:
                troubles[str(error)] = None
        self.troubles = tuple(troubles)
        self._conflicts.hold(
            [
                (claims.interface.name, ip_address(address))
                for claims in self._claims.values()
                for address in claims.addresses
            ],
            now,
        )

    def hear(self, claims: Claims, now: float) -> bool:
        """Read the claims of others on the link; return whether there were any."""
        is_anything = False
        for claim in claims.heard():
            is_anything = True
            if claim.mac not in self._macs:
                self._conflicts.hear((claims.interface.name, ip_address(claim.address)), claim.mac, now)
        return is_anything

    def settle(self, now: float) -> list[Conflict]:
        """Return the new conflicts about addresses; call this about every second."""
        return self._conflicts.settle(now)

    def conflicts(self) -> list[Conflict]:
        """Return the conflicts about addresses that are not over."""
        return self._conflicts.current()

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; infinity if never."""
        return min((held.schedule.next_deadline() for held in self._held.values()), default=math.inf)

    def handle_deadline(self, now: float) -> None:
        """Announce what is due."""
        for held in self._held.values():
            times = held.schedule.handle_deadline(now)
            if times:
                for (place, version), neighbours in self._sockets.items():
                    addresses = [
                        each.packed for each in held.places.get(place, ()) if each.version == version
                    ]
                    neighbours.announce(addresses, times)
                    if addresses and (place, version) in self._claims:
                        self._claims[place, version].ask()

    def close(self) -> None:
        """Release everything."""
        self._held.clear()
        for key in self._sockets.keys() | self._claims.keys():
            self._close(key)

    def _wanted(self) -> dict[tuple[str | int, int], frozenset[bytes]]:
        wanted: dict[tuple[str | int, int], set[bytes]] = {}
        for held in self._held.values():
            for place, addresses in held.places.items():
                for address in addresses:
                    wanted.setdefault((place, address.version), set()).add(address.packed)
        return {key: frozenset(addresses) for key, addresses in wanted.items()}

    def _begin_again(self, place: str | int, now: float) -> None:
        for held in self._held.values():
            if place in held.places:
                held.schedule.begin(now)

    def _listen(self, key: tuple[str | int, int], interface: Interface, addresses: frozenset[bytes]) -> None:
        claims = self._claims.get(key)
        if claims is None:
            claims = self._claims[key] = Claims(interface, key[1])
            self._opened(claims)
        claims.interface = interface  # its addresses may have changed
        claims.set_addresses(addresses)

    def _close(self, key: tuple[str | int, int]) -> None:
        for each in (self._sockets.pop(key, None), self._claims.pop(key, None)):
            if each is not None:
                self._closing(each)
                each.close()


def _usable(interface: Interface | None) -> Interface | None:
    """Return *interface* if it is an Ethernet that is up."""
    return interface if interface is not None and interface.is_up and interface.mac is not None else None


def _is_same(before: Interface, now: Interface) -> bool:
    return (before.name, before.index, before.mac) == (now.name, now.index, now.mac)
