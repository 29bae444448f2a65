"""How this host gets a lease and keeps it, by flanneld's rules (flannel-io/flannel pkg/subnet/etcd/local_manager.go).

- The lease with this host's address is taken over, no matter who wrote it, so that a host that ran flanneld keeps its
  subnet; one that does not fit the config is deleted.  A lease of this host's public key counts as well: its address
  may have changed.
- Otherwise it takes the subnet that it had when it last ran, if that is free, or one of the first hundred free ones at
  random.  The key is created only if it does not exist.
- A reservation, which is a key without an etcd lease, stays one.

What differs, where flanneld would take from others or stop: a key is taken over only as it was seen, the lease is kept
by keepalives, which cause no event for others, and one that was deleted is claimed again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from peers.encapsulation import WIREGUARD
from peers.prefixes import PrefixMap
from peers.stores.etcd.leases import CANDIDATES, LEAST_INTERVAL
from peers.stores.etcd.tenant import Call, Grant, Standing, Tenant, Write
from peers.stores.flannel.config import SECONDS, VXLAN, Config
from peers.stores.flannel.lease import Lease
from peers.stores.flannel.members import Members, own_mac

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.addresses import Prefix
    from peers.stores.flannel.lease import AgentData, Keys
    from peers.stores.flannel.members import Placed

# Ours
FRESH = 60.0  # seconds; who finds a key that it wrote so recently taken back is the one that came second


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who asks: what it says of itself, and the *address* where others reach it, None as long as it is not known."""

    agent: AgentData
    address: IPv4Address | None = None

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The public keys that it answers to."""
        other = self.agent.other_key
        return (self.agent.public_key,) if other is None else (self.agent.public_key, other)


class Tenancy(Tenant[Members, Config]):
    """The lease of one host.  *had* are the subnets that it had when it ran last; *chance* draws bytes."""

    def __init__(
        self,
        keys: Keys,
        claimant: Claimant,
        had: tuple[Prefix, ...] = (),
        chance: Callable[[int], bytes] = bytes,
    ) -> None:
        super().__init__(chance)
        self.claimant = claimant
        self._keys = keys
        self._had = [subnet for subnet in had if isinstance(subnet, IPv4Network)]
        self._other: Lease | None = None  # who has it in our place

    def next_call(self, members: Members, document: Config, now: float) -> Call | None:
        """Return the call that is to be made now; None if there is none.  The standing is then that of *members*."""
        if self.claimant.address is None:
            return None
        mine = [placed for placed in members.everybody if self._is_mine(placed)]
        current = next((placed for placed in mine if self._is_ours(placed.value)), None)
        self._look_for_other(members, now)
        if self._other is not None:
            self.standing = Standing.COPY
            return None
        self._look_for_loss(members, current)
        if current is not None and current in members.accepted and document.gives_out(current.subnet):
            return self._keep(current, document, now)
        return self._claim(mine, members, document, now)

    def _is_ours(self, value: Lease) -> bool:
        return value.agent is not None and value.agent.instance == self.claimant.agent.instance

    def _is_mine(self, placed: Placed) -> bool:
        own, agent = self.claimant, placed.value.agent
        if agent is not None and agent.is_of(own.keys):
            return True
        return placed.value.address == own.address

    def _look_for_other(self, members: Members, now: float) -> None:
        """Find out whether somebody else at our address has our lease, and which of us came second."""
        held = (placed for placed in members.everybody if placed.key == self._held)
        at = next((placed for placed in held if self._is_mine(placed)), None)
        if self._other is not None and (at is None or not _is_same(at.value, self._other)):
            self._other = None  # it has left
        if at is not None and not self._is_ours(at.value) and now - self._held_since < FRESH:
            self._other = at.value

    def _look_for_loss(self, members: Members, current: Placed | None) -> None:
        """Find out whether our subnets are another's now."""
        if not self.subnets or (current is not None and current in members.accepted):
            return
        owners = PrefixMap((placed.subnet, True) for placed in members.accepted if not self._is_mine(placed))
        gone = tuple(each for each in self.subnets if any(owners.covering(each)) or owners.has_inside(each))
        if gone:
            self.lost = tuple(dict.fromkeys((*self.lost, *gone)))
            self.subnets, self._had = (), []

    def _keep(self, current: Placed, config: Config, now: float) -> Call | None:
        self.subnets, self._had = (current.subnet,), [current.subnet]
        is_reserved = not current.lease
        self.standing = Standing.HELD if self.lease or is_reserved else Standing.LOST
        if now < self._not_before:
            return None
        if is_reserved:
            self.lease = 0
        elif not self.lease:
            return Grant(SECONDS)
        wanted = self._value(config)
        is_due = now >= self._wrote_at + LEAST_INTERVAL or (
            current.value.agent is not None
            and current.value.agent.public_key != self.claimant.agent.public_key
        )
        if current.lease != self.lease or (current.value != wanted and is_due):
            return Write(current.key, wanted, self.lease, current.modified)
        return self.renewal(now)

    def _claim(self, mine: list[Placed], members: Members, config: Config, now: float) -> Call | None:
        if now < self._not_before:
            return None
        if self.standing is not Standing.LOST:
            self.standing = Standing.LOST if self.subnets or self.lost else Standing.NOT_YET
        fits = [each for each in mine if each in members.accepted and config.gives_out(each.subnet)]
        useless = [each for each in mine if not config.gives_out(each.subnet) or self._is_ours(each.value)]
        removed = tuple((each.key, each.modified) for each in useless if each not in fits)
        # The one that we had comes first: another may be left over from an earlier start.
        there = next((each for each in fits if each.subnet in self._had), next(iter(fits), None))
        subnet = there.subnet if there is not None else self._choose(members, config)
        if subnet is None:
            self.standing = Standing.FULL
            return None
        is_reserved = there is not None and not there.lease
        if not self.lease and not is_reserved:
            return Grant(SECONDS)
        lease, modified = 0 if is_reserved else self.lease, there.modified if there is not None else 0
        return Write(self._keys.lease(subnet), self._value(config), lease, modified, removed)

    def _choose(self, members: Members, config: Config) -> IPv4Network | None:
        """Return the subnet to claim; None where nothing is free."""
        # A node that is left out still has its key.
        used = PrefixMap((placed.subnet, True) for placed in members.everybody)

        def is_free(subnet: IPv4Network) -> bool:
            return not any(used.covering(subnet)) and not used.has_inside(subnet)

        for subnet in self._had:
            if config.gives_out(subnet) and is_free(subnet):
                return subnet
        free = list(itertools.islice(filter(is_free, config.subnets()), CANDIDATES))
        return free[int.from_bytes(self._chance(4), "big") % len(free)] if free else None

    def _value(self, config: Config) -> Lease:
        agent, address = self.claimant.agent, self.claimant.address
        assert address is not None
        if config.backend == WIREGUARD:
            return Lease(address, WIREGUARD, public_key=agent.public_key, port=agent.port, agent=agent)
        if config.backend == VXLAN:
            return Lease(address, VXLAN, mac=own_mac(agent.public_key), vni=config.vni, agent=agent)
        return Lease(address, config.backend, agent=agent)


def _is_same(value: Lease, other: Lease) -> bool:
    if value.agent is None or other.agent is None:
        return value.agent is other.agent
    return value.agent.instance == other.agent.instance
