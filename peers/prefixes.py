"""Longest-prefix match over IPv4 and IPv6."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peers.addresses import Address, Prefix

V = TypeVar("V")

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
        version, shift, bits = _split(prefix)
        entries = self._levels[version].get(shift)
        if entries is None:
            entries = {}
            self._levels[version] = dict(sorted([*self._levels[version].items(), (shift, entries)]))
        replaced = entries.get(bits)
        entries[bits] = value
        return replaced

    def remove(self, prefix: Prefix) -> V:
        """Forget *prefix*, and return its value.  Raises KeyError if it is not here."""
        version, shift, bits = _split(prefix)
        try:
            value = self._levels[version][shift].pop(bits)
        except KeyError:
            raise KeyError(prefix) from None
        if not self._levels[version][shift]:
            del self._levels[version][shift]
        return value

    def lookup(self, address: Address) -> V | None:
        """Return the value of the longest prefix that holds *address*; None if none does."""
        number = int(address)
        for shift, entries in self._levels[address.version].items():
            value = entries.get(number >> shift)
            if value is not None:
                return value
        return None

    def match(self, address: Address) -> tuple[Prefix, V] | None:
        """Return the longest prefix that holds *address*, and its value; None if none does."""
        return next(self._holding(address.version, int(address), 0), None)

    def covering(self, prefix: Prefix) -> Iterator[tuple[Prefix, V]]:
        """Yield each prefix that holds all of *prefix*, with its value, longest first; *prefix* itself too."""
        version, shift, _ = _split(prefix)
        return self._holding(version, int(prefix.network_address), shift)

    def has_inside(self, prefix: Prefix) -> bool:
        """Return whether there is *prefix* itself, or one inside of it.  It looks at all of that family."""
        version, shift, bits = _split(prefix)
        return any(
            number >> (shift - each) == bits
            for each, entries in self._levels[version].items()
            if each <= shift
            for number in entries
        )

    def _holding(self, version: int, number: int, least_shift: int) -> Iterator[tuple[Prefix, V]]:
        for shift, entries in self._levels[version].items():
            value = entries.get(number >> shift) if shift >= least_shift else None
            if value is not None:
                yield _join(version, shift, number >> shift), value


def _split(prefix: Prefix) -> tuple[int, int, int]:
    version = prefix.version
    shift = WIDTH[version] - prefix.prefixlen
    return version, shift, int(prefix.network_address) >> shift


def _join(version: int, shift: int, bits: int) -> Prefix:
    if version == 4:
        return IPv4Network((bits << shift, WIDTH[4] - shift))
    return IPv6Network((bits << shift, WIDTH[6] - shift))
