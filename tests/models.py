"""Slow and obvious twins of the project's clever structures, for comparisons."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Generic, TypeVar

from overlay.link.codec import MESSAGE_BYTES, decode, encode
from overlay.link.messages import OWN, ROUTES_PER_MESSAGE, RemovePeer, Routes, SetPeer

if TYPE_CHECKING:
    from peers.addresses import Address, Prefix

V = TypeVar("V")


class SlowPrefixMap(Generic[V]):
    """Twin of peers.prefixes.PrefixMap that examines every prefix."""

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
    """Twin of a forwarder's table: peers and, for each commit, one dict of prefixes."""

    def __init__(self):
        self.keepalives = {}
        self.in_force = {}
        self._coming = {}
        self.numbers = set()

    def take(self, commands):
        """Carry out *commands*, and assert that a forwarder could make sense of them."""
        pending = 0
        for command in commands:
            assert len(encode(command)) <= MESSAGE_BYTES
            assert decode(encode(command)) == command
            match command:
                case SetPeer(number, keepalive):
                    assert number in self.keepalives or number not in self.numbers, "a number was used twice"
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
        assert pending == 0, "a change was never committed"

    def named(self, roster, own):
        """Return the prefixes in force, each with the name of its peer."""
        names = {OWN: own} | {number: remote.peer.name for number, remote in roster.by_number.items()}
        return {
            (IPv4Network if len(packed) == 4 else IPv6Network)((packed, length)): names[number]
            for (packed, length), number in self.in_force.items()
        }


class SlowBridge:
    """Twin of overlay.forwarding.bridge.Bridge, except for answers: one list of what was seen last,"""

    AGEING, HOLD, TAP = 300.0, 1.0, 0

    def __init__(self, most):
        self.most = most
        self.static = {}
        self.seen = []  # (when, mac, owner), the latest last

    def set_static(self, owner, macs):
        self.static = {mac: each for mac, each in self.static.items() if each != owner}
        self.static.update(dict.fromkeys(macs, owner))
        self.seen = [event for event in self.seen if event[1] not in macs]

    def forget(self, owner):
        self.set_static(owner, ())
        self.seen = [event for event in self.seen if event[2] != owner]

    def known(self, now, *, aged=True):
        """Return which node has which learned address, and since when."""
        return {mac: (when, owner) for when, mac, owner in self.seen if not aged or now - when < self.AGEING}

    def _see(self, now, mac, owner):
        self.seen = [event for event in self.seen if event[1] != mac] + [(now, mac, owner)]
        mine = [each for each, (_, whose) in self.known(now, aged=False).items() if whose == owner]
        for each in mine[: -self.most]:
            self.seen = [event for event in self.seen if event[1] != each]

    def locate(self, mac, now):
        if mac in self.static:
            return self.static[mac]
        return self.known(now)[mac][1] if mac in self.known(now) else None

    def from_tap(self, destination, source, now):
        """Return the destination's owner, or the reason for which the frame is refused."""
        if source[0] & 1:
            return "frame_source"
        if self.static.get(source, self.TAP) != self.TAP:
            return "mac"
        if source not in self.static:
            self._see(now, source, self.TAP)
        return None if destination[0] & 1 else self.locate(destination, now)

    def from_peer(self, owner, source, now):
        """Return None, or the reason for which the frame is refused."""
        if source[0] & 1:
            return "frame_source"
        if self.static.get(source, owner) != owner:
            return "mac"
        when, whose = self.known(now).get(source, (0, None))
        if whose == self.TAP and now - when < self.HOLD:
            return "frame_loop"
        if source not in self.static:
            self._see(now, source, owner)
        return None

    def learnt(self, owner, now):
        return sum(whose == owner for _, whose in self.known(now).values())
