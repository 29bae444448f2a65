"""Addresses that are at this host, but that another host on the link claims, too; pure.

Directors that hand over an address both claim it for a moment.  So claims just after an address has come here are
ignored, and a later claim becomes a conflict if the address is still here some seconds later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.host.plan import IPAddress

# Ours, in seconds
SETTLED = 4.0  # after an address has come here; less than the time until it is announced and asked for again
PATIENCE = 5.0  # for this host to give up an address that another has taken over
REMEMBERED = 150.0  # after the last claim: the address is asked for once a minute, and a frame may be lost


@dataclass(frozen=True, slots=True)
class Conflict:
    """The host at *mac* on the link of *interface* claims *address*, which is here."""

    address: IPAddress
    interface: str
    mac: bytes

    def __str__(self) -> str:
        """Return a sentence with the cause and the remedy."""
        quiet = (
            ", or, if it is a server that should have it, set net.ipv4.conf.all.arp_ignore = 1 and "
            "net.ipv4.conf.all.arp_announce = 2 there"
            if self.address.version == 4
            else ""
        )
        return (
            f"{self.address} is here, but the host with the Ethernet address {self.mac.hex(':')} on {self.interface} "
            "claims it too, so that clients reach one or the other: remove the address from that host"
            f"{quiet}; if it is a director of the service, let the two reach each other"
        )


@dataclass(slots=True)
class _Heard:
    mac: bytes
    since: float
    latest: float
    is_reported: bool = False


_Place = tuple[str, "IPAddress"]  # the name of an interface, and an address on its link


class Conflicts:
    """The addresses that are held, and the claims of them.  Times are seconds of any clock that only moves forward."""

    def __init__(self) -> None:
        self._held: dict[_Place, float] = {}  # since when
        self._heard: dict[_Place, _Heard] = {}  # at most one for each that is held

    def hold(self, places: Iterable[_Place], now: float) -> None:
        """Set the addresses that are here; claims of others are forgotten."""
        self._held = {place: self._held.get(place, now) for place in places}
        for place in self._heard.keys() - self._held.keys():
            del self._heard[place]

    def hear(self, place: _Place, mac: bytes, now: float) -> None:
        """Record that the host at *mac*, which is not this one, claims an address.

        If several hosts claim one address, the first is remembered while any of them goes on.
        """
        if now - self._held.get(place, now) < SETTLED:
            return
        heard = self._heard.get(place)
        if heard is None:
            self._heard[place] = _Heard(mac, now, now)
        else:
            heard.latest = now

    def settle(self, now: float) -> list[Conflict]:
        """Forget conflicts that are over, and return the new ones; call this about every second."""
        for place in [each for each, heard in self._heard.items() if now - heard.latest >= REMEMBERED]:
            del self._heard[place]
        fresh = []
        for (interface, address), heard in self._heard.items():
            if not heard.is_reported and now - heard.since >= PATIENCE:
                heard.is_reported = True
                fresh.append(Conflict(address, interface, heard.mac))
        return fresh

    def current(self) -> list[Conflict]:
        """Return the conflicts that settle() has returned and that are not over."""
        return [
            Conflict(address, interface, heard.mac)
            for (interface, address), heard in self._heard.items()
            if heard.is_reported
        ]
