"""Slow and obvious twins of the project's clever structures, to compare them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from peers.addresses import Address, Prefix

V = TypeVar("V")


class SlowPrefixMap(Generic[V]):
    """Twin of peers.prefixes.PrefixMap: it looks at every prefix."""

    def __init__(self) -> None:
        self.values: dict[Prefix, V] = {}

    def __len__(self) -> int:
        return len(self.values)

    def insert(self, prefix: Prefix, value: V) -> V | None:
        replaced = self.values.get(prefix)
        self.values[prefix] = value
        return replaced

    def remove(self, prefix: Prefix) -> V:
        return self.values.pop(prefix)

    def lookup(self, address: Address) -> V | None:
        found = self.match(address)
        return None if found is None else found[1]

    def match(self, address: Address) -> tuple[Prefix, V] | None:
        holding = [(prefix, value) for prefix, value in self.values.items() if address in prefix]
        return max(holding, key=lambda item: item[0].prefixlen, default=None)

    def covering(self, prefix: Prefix) -> list[tuple[Prefix, V]]:
        holding = [
            (wider, value)
            for wider, value in self.values.items()
            if wider.version == prefix.version
            and wider.network_address <= prefix.network_address
            and wider.broadcast_address >= prefix.broadcast_address
        ]
        return sorted(holding, key=lambda item: -item[0].prefixlen)
