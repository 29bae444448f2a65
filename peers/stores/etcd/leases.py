"""How this host gets its subnet and keeps it: what is known goes in, the next call comes out.

It is asked again after every event, and decides what to do from the current state alone, so that nothing depends on
which answers were lost.  The rules of who gets what:

- A host takes the subnet that it had, or the one that is reserved for it, or a free one at random.
- If the administrator vouches for it with one subnet, it takes only that, and moves there from another, with which no
  node would accept it.
- This host's key from an earlier start is taken over, by comparing its revision, so that it is as it was seen.
- If two hosts want the same subnet, the first one keeps it (see members.py).  The other takes another subnet for new
  containers, and leaves running ones alone.
- A host whose fresh key is taken back by another host with the same private key is the copy, and gives up.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peers.prefixes import PrefixMap
from peers.stores.etcd.document import Document
from peers.stores.etcd.layout import NodeValue
from peers.stores.etcd.members import Members, name_for
from peers.stores.etcd.tenant import Call, Grant, KeepAlive, Standing, Tenant, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.addresses import Prefix
    from peers.stores.etcd.layout import Keys, Reservation
    from peers.stores.etcd.members import Placed
    from peers.stores.membership import OwnKeys

# Ours
CANDIDATES = (
    100  # free subnets of which one is chosen by chance: hosts that start at once seldom want the same
)
LEAST_INTERVAL = 10.0  # seconds between two writes of a value that changed


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who asks: what it wants to say of itself; *instance* is another at each start.

    It answers to *keys*, and others are told *public_key* of them, where that is not None; else the one in use.
    """

    name: str
    keys: OwnKeys
    instance: str
    endpoints: tuple[str, ...] = ()
    encapsulation: str | None = None
    public_key: bytes | None = None

    @property
    def told(self) -> bytes:
        """The public key that others are told."""
        if self.public_key is not None and self.public_key in {*self.keys}:
            return self.public_key
        return self.keys.current

    def is_for(self, reservation: Reservation) -> bool:
        """Return whether a subnet is kept for this host."""
        return any(reservation.is_for(self.name, key) for key in self.keys)


class Tenancy(Tenant[Members, Document]):
    """The subnet of one host.

    *had* are the subnets that it had when it ran last; *chance* draws bytes, and *assigned* returns the subnet that a
    public key is vouched for with, None for any.
    """

    def __init__(
        self,
        keys: Keys,
        claimant: Claimant,
        had: tuple[Prefix, ...] = (),
        chance: Callable[[int], bytes] = bytes,
        assigned: Callable[[bytes], Prefix | None] = lambda _: None,
    ) -> None:
        super().__init__(chance)
        self.claimant, self._assigned = claimant, assigned
        self._keys, self._had = keys, had
        self._copy: str | None = None  # the instance that we leave the key to

    def next_call(self, members: Members, document: Document, now: float) -> Call | None:
        """Return the call that must be made now; None if there is none.  The standing is then that of *members*."""
        own = self.claimant.keys
        if any(peer.public_key in {*own} for peer in document.peers.values()):
            self.standing, self.subnets = Standing.LISTED, ()
            return None
        mine = members.of(own)
        current = next((each for each in mine if each.value.instance == self.claimant.instance), None)
        self._look_for_copy(mine, now)
        if self._copy is not None:
            self.standing = Standing.COPY
            return None
        self._look_for_loss(members, current)
        if current is not None and (current in members.accepted or current in members.unvouched):
            if not self._is_to_move(current, members, document):
                return self._keep(current, mine, members, document, now)
            if self.subnets:
                self.lost = tuple(dict.fromkeys((*self.lost, *self.subnets)))
            self.subnets = self._had = ()
        return self._claim(mine, members, document, now)

    @property
    def assigned(self) -> Prefix | None:
        """The subnet that this host is vouched for with; None if that is any subnet, or it is not vouched for."""
        return self._assigned(self.claimant.told)

    def describe_obstacle(self, members: Members, document: Document) -> str | None:
        """Return who has the subnet that this host is vouched for with, as the end of a sentence; None if free."""
        assigned = self.assigned
        if assigned is None:
            return None
        own, number = self.claimant, number_with(assigned, document)
        if number is None:
            return "is not one of the subnets that are given out"
        subnets = document.leases.subnets(number)
        for each in members.everybody:
            if not each.value.is_of(own.keys) and not _is_free(subnets, _map(each.value.subnets)):
                return f"the node {each.value.name} has"
        for kept in members.reservations:
            if not own.is_for(kept) and not _is_free(subnets, _map((kept.subnet,))):
                return f"is reserved for {kept.name or 'another public key'}"
        if not _is_free(subnets, document.taken):
            return "is used in the document"
        return None

    def _is_to_move(self, current: Placed, members: Members, document: Document) -> bool:
        """Return whether no node accepts this host with the subnet that it has, and the one that it should have
        is free.
        """
        assigned = self.assigned
        if assigned is None or assigned in current.value.subnets or current in members.accepted:
            return False
        return self._choose(members, document) is not None

    def _look_for_copy(self, mine: list[Placed], now: float) -> None:
        """Find out whether another host has our private key, and which of us is the copy."""
        if self._copy is not None and not any(each.value.instance == self._copy for each in mine):
            self._copy = None  # it has left
        if self._held is None:
            return
        at = next((each for each in mine if each.key == self._held), None)
        # Another start of an agent with our key has taken it over: of us two the one that had it for long stays.
        is_taken = at is not None and at.value.instance != self.claimant.instance
        if at is not None and is_taken and now - self._held_since < self._seconds:
            self._copy = at.value.instance

    def _look_for_loss(self, members: Members, current: Placed | None) -> None:
        """Find out whether our subnets are another's now."""
        if not self.subnets:
            return
        if current is not None and (current in members.accepted or current in members.unvouched):
            return
        owners = PrefixMap(
            (subnet, placed.value.public_key)
            for placed in members.accepted
            for subnet in placed.value.subnets
            if not placed.value.is_of(self.claimant.keys)
        )
        gone = tuple(each for each in self.subnets if any(owners.covering(each)) or owners.has_inside(each))
        if gone or (current is not None and self.subnets):
            self.lost = tuple(dict.fromkeys((*self.lost, *(gone or self.subnets))))
            self.subnets = ()
            self._had = ()

    def _keep(
        self, current: Placed, mine: list[Placed], members: Members, document: Document, now: float
    ) -> Call | None:
        if current in members.accepted:
            self.subnets = self._had = current.value.subnets
            self.standing = Standing.HELD if self.lease else Standing.LOST
        else:
            self.standing = Standing.UNVOUCHED
        if now < self._not_before:
            return None
        if not self.lease:
            return Grant(document.leases.seconds)
        wanted = self._value(current.value.subnets, members, document)
        removed = tuple((each.key, each.modified) for each in mine if each is not current)
        # Another public key is written at once: a person waits for it, or no node accepts the one that is there.
        is_due = now >= self._wrote_at + LEAST_INTERVAL or current.value.public_key != wanted.public_key
        if current.lease != self.lease or removed or (current.value != wanted and is_due):
            return Write(current.key, wanted, self.lease, current.modified, removed)
        if now >= self._kept_at + self._renew_after:
            return KeepAlive(self.lease)
        return None

    def _claim(self, mine: list[Placed], members: Members, document: Document, now: float) -> Call | None:
        if self.standing is not Standing.LOST:
            self.standing = Standing.LOST if self.subnets or self.lost else Standing.NOT_YET
        if now < self._not_before:
            return None
        good = (*members.accepted, *members.unvouched)
        assigned = self.assigned
        earlier = [
            each
            for each in mine
            if each in good
            and _is_taken_over(each, document)
            and (assigned is None or assigned in each.value.subnets)
        ]
        # What we had comes first, then the oldest.
        earlier.sort(key=lambda each: (each.value.subnets != self._had, each.created))
        subnets = earlier[0].value.subnets if earlier else self._choose(members, document)
        if subnets is None:
            self.standing = Standing.FULL if assigned is None else Standing.TAKEN
            return None
        if not self.lease:
            return Grant(document.leases.seconds)
        key = self._keys.node(subnets[0])
        there = next((each for each in mine if each.key == key), None)
        removed = tuple((each.key, each.modified) for each in mine if each.key != key)
        value = self._value(subnets, members, document)
        return Write(key, value, self.lease, there.modified if there else 0, removed)

    def _choose(self, members: Members, document: Document) -> tuple[Prefix, ...] | None:
        """Return the subnets to claim; None where nothing is free."""
        leases, own = document.leases, self.claimant
        reserved = [each for each in members.reservations if own.is_for(each)]
        wanted = [*self._had[:1], *(each.subnet for each in reserved)]
        numbers = [number for each in wanted if (number := leases.number_of(each)) is not None]
        assigned = self.assigned
        if assigned is not None:
            number = number_with(assigned, document)
            numbers = [] if number is None else [number]
        taken, odd = self._used(members, document)

        def is_free(number: int) -> bool:
            return number not in taken and _is_free(leases.subnets(number), document.taken, odd)

        for number in numbers:
            if is_free(number):
                return leases.subnets(number)
        if assigned is not None:
            return None
        free = list(itertools.islice(filter(is_free, leases.numbers()), CANDIDATES))
        if not free:
            return None
        return leases.subnets(free[int.from_bytes(self._chance(4), "big") % len(free)])

    def _used(self, members: Members, document: Document) -> tuple[set[int], PrefixMap[bool]]:
        """Return the numbers that others have, or that are kept for them, and what of that is not cut by number."""
        own, leases = self.claimant, document.leases
        taken: set[int] = set()
        odd: PrefixMap[bool] = PrefixMap()
        # A node that is left out still has its key, and so the number, but nothing else.
        others = [each for each in members.everybody if not each.value.is_of(own.keys)]
        taken.update(
            number for each in others if (number := leases.number_of(each.value.subnets[0])) is not None
        )
        used = [each.value.subnets for each in members.accepted if not each.value.is_of(own.keys)]
        used += [(each.subnet,) for each in members.reservations if not own.is_for(each)]
        for subnets in used:
            number = leases.number_of(subnets[0])
            if number is not None:
                taken.add(number)
            for subnet in (
                subnets if number is None or leases.subnets(number)[: len(subnets)] != subnets else ()
            ):
                odd.insert(subnet, True)
        return taken, odd

    def _value(self, subnets: tuple[Prefix, ...], members: Members, document: Document) -> NodeValue:
        own = self.claimant
        value = NodeValue(
            *(own.name, own.told, subnets, own.instance),
            *(own.endpoints, own.encapsulation, own.keys.other_than(own.told)),
        )
        return replace(value, name=name_for(value, own.keys, members, document))


def _is_taken_over(placed: Placed, document: Document) -> bool:
    """Return whether the subnets in this host's key are those that the document now assigns to their number."""
    number = document.leases.number_of(placed.value.subnets[0])
    return number is not None and document.leases.subnets(number) == placed.value.subnets


def number_with(subnet: Prefix, document: Document) -> int | None:
    """Return the number that *subnet*, of any family, is given out with; None where it never is."""
    leases = document.leases
    for pool, length in zip(leases.pools, leases.lengths, strict=True):
        if subnet.version == pool.version and subnet.prefixlen == length:
            number = (int(subnet.network_address) - int(pool.network_address)) >> (
                pool.max_prefixlen - length
            )
            return number if 0 <= number < leases.count else None
    return None


def _is_free(subnets: tuple[Prefix, ...], *used: PrefixMap[str] | PrefixMap[bool]) -> bool:
    return not any(
        any(each.covering(subnet)) or each.has_inside(subnet) for subnet in subnets for each in used
    )


def _map(subnets: tuple[Prefix, ...]) -> PrefixMap[bool]:
    return PrefixMap((subnet, True) for subnet in subnets)
