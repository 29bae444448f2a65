"""Slow and obvious twins of the project's clever structures, to compare them with."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Generic, TypeVar

from overlay.link import MESSAGE_BYTES, OWN, ROUTES_PER_MESSAGE, RemovePeer, Routes, SetPeer, decode, encode

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


class SlowForwarder:
    """Twin of what a forwarder makes of the commands: it knows peers and, at each commit, one dict of prefixes."""

    def __init__(self):
        self.keepalives = {}
        self.in_force = {}
        self._coming = {}
        self.numbers = set()

    def take(self, commands):
        """Carry out *commands*; refuse what a forwarder could not make sense of."""
        pending = 0
        for command in commands:
            assert len(encode(command)) <= MESSAGE_BYTES
            assert decode(encode(command)) == command
            match command:
                case SetPeer(number, keepalive):
                    assert number in self.keepalives or number not in self.numbers, "a number came again"
                    self.numbers.add(number)
                    self.keepalives[number] = keepalive
                case RemovePeer(number):
                    assert number not in self.in_force.values(), "prefixes lead to a removed peer"
                    del self.keepalives[number]
                case Routes(add, remove, is_last):
                    assert 0 < len(add) + len(remove) <= ROUTES_PER_MESSAGE
                    for packed, length in remove:
                        del self._coming[packed, length]
                    for packed, length, number in add:
                        assert number == OWN or number in self.keepalives
                        self._coming[packed, length] = number
                    pending += 1
                    if is_last:
                        self.in_force, pending = dict(self._coming), 0
                case _:
                    raise AssertionError(command)
        assert pending == 0, "a change that never came into force"

    def named(self, roster, own):
        """Return the prefixes in force, each with the name of its peer."""
        names = {OWN: own} | {number: remote.peer.name for number, remote in roster.by_number.items()}
        return {
            (IPv4Network if len(packed) == 4 else IPv6Network)((packed, length)): names[number]
            for (packed, length), number in self.in_force.items()
        }
