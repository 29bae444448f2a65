"""Longest-prefix match over IPv4 and IPv6."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peers.addresses import Address, Prefix

V = TypeVar("V")

Place: TypeAlias = tuple[int, int, int]
"""Where a prefix stands in a map: version, bits behind the prefix, and the bits before them as a number."""

WIDTH = {4: 32, 6: 128}  # bits of an address


class PrefixMap(Generic[V]):
    """Values by prefix, found by the longest prefix that holds an address.

    For each family there is one dict for each prefix length in use, longest first: it maps the leading bits of
    the address, as a number, to the value.  A lookup asks each dict once, so its cost grows with the number
    of different lengths, a handful in practice, and not with the number of prefixes.  Values are never None.
    """

    __slots__ = ("_levels",)

    def __init__(self, items: Iterable[tuple[Prefix, V]] = ()) -> None:
        # version -> bits behind the prefix (width - length), ascending -> leading bits -> value
        self._levels: dict[int, dict[int, dict[int, V]]] = {4: {}, 6: {}}
        for prefix, value in items:
            self.insert(prefix, value)

    def __len__(self) -> int:
        return sum(len(entries) for levels in self._levels.values() for entries in levels.values())

    def insert(self, prefix: Prefix, value: V) -> V | None:
        """Map *prefix* to *value*, and return the value that it replaces; None if there was none."""
        return self.insert_at(place_of(prefix), value)

    def insert_at(self, place: Place, value: V) -> V | None:
        """Do what insert() does, for a prefix whose place is known."""
        version, shift, bits = place
        entries = self._levels[version].get(shift)
        if entries is None:
            entries = {}
            self._levels[version] = dict(sorted([*self._levels[version].items(), (shift, entries)]))
        replaced = entries.get(bits)
        entries[bits] = value
        return replaced

    def remove(self, prefix: Prefix) -> V:
        """Forget *prefix*, and return its value.  Raises KeyError if it is not here."""
        version, shift, bits = place_of(prefix)
        try:
            value = self._levels[version][shift].pop(bits)
        except KeyError:
            raise KeyError(prefix) from None
        if not self._levels[version][shift]:
            del self._levels[version][shift]
        return value

    def lookup(self, address: Address) -> V | None:
        """Return the value of the longest prefix that holds *address*; None if none does."""
        return self.lookup_number(address.version, int(address))

    def lookup_number(self, version: int, number: int) -> V | None:
        """Do what lookup() does, for the address of *version* that is *number*."""
        for shift, entries in self._levels[version].items():
            value = entries.get(number >> shift)
            if value is not None:
                return value
        return None

    def match(self, address: Address) -> tuple[Prefix, V] | None:
        """Return the longest prefix that holds *address*, and its value; None if none does."""
        return next(self._holding(address.version, int(address), 0), None)

    def covering(self, prefix: Prefix) -> Iterator[tuple[Prefix, V]]:
        """Yield each prefix that holds all of *prefix*, with its value, longest first; *prefix* itself too."""
        version, shift, _ = place_of(prefix)
        return self._holding(version, int(prefix.network_address), shift)

    def covers(self, place: Place) -> bool:
        """Return whether the prefix at *place*, or one that holds it, is here."""
        version, shift, bits = place
        return any(
            each >= shift and bits >> (each - shift) in entries
            for each, entries in self._levels[version].items()
        )

    def has_inside(self, prefix: Prefix) -> bool:
        """Return whether there is *prefix* itself, or one inside of it.  It looks at all that are longer."""
        version, shift, bits = place_of(prefix)
        return any(
            bits in entries if each == shift else any(number >> (shift - each) == bits for number in entries)
            for each, entries in self._levels[version].items()
            if each <= shift
        )

    def _holding(self, version: int, number: int, least_shift: int) -> Iterator[tuple[Prefix, V]]:
        for shift, entries in self._levels[version].items():
            value = entries.get(number >> shift) if shift >= least_shift else None
            if value is not None:
                yield _join(version, shift, number >> shift), value


def place_of(prefix: Prefix) -> Place:
    """Return where *prefix* is in a map."""
    version = prefix.version
    shift = WIDTH[version] - prefix.prefixlen
    return version, shift, int(prefix.network_address) >> shift


def _join(version: int, shift: int, bits: int) -> Prefix:
    if version == 4:
        return IPv4Network((bits << shift, WIDTH[4] - shift))
    return IPv6Network((bits << shift, WIDTH[6] - shift))
