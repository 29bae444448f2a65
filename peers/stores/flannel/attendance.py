"""An agent's part in flannel's network: what its keys say, and how it stands in it.  See participant.py for how
that comes about.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING
from urllib.parse import quote

from peers.encapsulation import PORTS, WIREGUARD
from peers.errors import MemberError, StoreError
from peers.peer import Endpoint
from peers.stores.etcd import saved
from peers.stores.etcd.endpoint import find_address
from peers.stores.etcd.layout import MalformedError
from peers.stores.etcd.participant import Participant
from peers.stores.etcd.tenant import Standing
from peers.stores.flannel.config import SECONDS, Config, read_config
from peers.stores.flannel.lease import AgentData, by_key
from peers.stores.flannel.leases import Claimant, Tenancy
from peers.stores.flannel.members import Members, Own, Snapshot, read_placed, reading_members
from peers.stores.remark import StoreRemark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.slices import Slices
    from peers.stores.flannel.lease import Keys
    from peers.stores.membership import Member, OwnKeys


class Attendance(Participant[Config, Members, Snapshot]):
    """One host in one network of flannel's.

    *take* is handed each snapshot, and *missing* makes the error of a network that is not there.  Raises MemberError
    where *member* cannot be a part of such a network.
    """

    def __init__(
        self,
        keys: Keys,
        path: Path,
        gateway: Gateway,
        member: Member,
        take: Callable[[Snapshot], None],
        missing: Callable[[], StoreError],
    ) -> None:
        self._keys, self._path, self._missing = keys, path, missing
        if member.encapsulation is not None:
            raise MemberError(
                f"--encapsulation {member.encapsulation} has no effect in flannel's network, whose config decides: "
                "leave it out"
            )
        address, self._port = _read_endpoint(member.endpoint)
        agent = AgentData(
            *(member.name, member.keys.current, os.urandom(16).hex()),
            *(self._port or PORTS[WIREGUARD].default, member.keys.following),
        )
        files = saved.Files(member.directory, f"flannel-{quote(keys.path, safe='')}")
        kept = files.read(member.keys)
        claimant = Claimant(agent, address)
        self._tenancy = Tenancy(keys, claimant, kept[0].subnets if kept is not None else (), os.urandom)
        super().__init__(keys.path, keys.prefix, gateway, member, files, self._tenancy, take)
        if address is None and (found := find_address(None, member, ())) is not None:
            self.take_address(found)  # until etcd is reached, for a table that is needed before

    def compared(self) -> list[bytes]:
        """Return the keys of the config and of this host's lease."""
        return [self._keys.config, *(self._keys.lease(each) for each in self._subnets()[:1])]

    def document_value(self) -> bytes | None:
        """Return the config."""
        config = self._mirror.kvs.get(self._keys.config)
        return config.value if config is not None else None

    def read_document(self) -> Config:
        """Return the config, if it can be read; agents then have its port for WireGuard."""
        config = read_config(self._mirror.kvs[self._keys.config].value, self._path)
        if config.backend == WIREGUARD and self._port is None and config.port is not None:
            claimant = self._tenancy.claimant
            self._tenancy.claimant = replace(claimant, agent=replace(claimant.agent, port=config.port))
        return config

    def describe_missing(self, *, was_there: bool) -> str:
        """Return what to do about a config that is not there."""
        if was_there:
            return f"{self._path} is gone; write flannel's config there again"
        return str(self._missing())

    def reading_members(self, document: Config) -> Slices[Members]:
        """Return who is in the network."""
        return reading_members(self._keys, tuple(self._mirror.kvs.values()), document)

    def make_snapshot(self, document: Config, members: Members) -> Snapshot:
        """Return all that a table is made of."""
        claimant = self._tenancy.claimant
        departed = []
        for kv, _ in self._mirror.departed.values():
            with contextlib.suppress(MalformedError):
                placed = read_placed(self._keys, kv)
                departed += [placed] if placed is not None else []
        own = Own(by_key(claimant.agent, self.told_key()), claimant.address, self._subnets())
        return Snapshot(document, members, own, tuple(departed))

    def prefixes(self, document: Config) -> Collection[Prefix]:
        """Return what the overlay carries."""
        return (document.network,)

    def seconds(self, document: Config) -> int:  # noqa: ARG002  it is the same for every config
        """Return how long a lease lasts."""
        return SECONDS

    def take_address(self, address: str) -> None:
        """Let others reach this host at *address*, if that is of IPv4."""
        with contextlib.suppress(ValueError):
            self._tenancy.claimant = replace(self._tenancy.claimant, address=IPv4Address(address))

    def describe_standing(self) -> StoreRemark | None:
        """Return what to do where this host does not take part."""
        if self._following.has_contact and self._tenancy.claimant.address is None:
            return StoreRemark(
                "this host has no IPv4 address that others could reach, which flannel's leases are known by",
                "name one with --endpoint",
            )
        match self._tenancy.standing:
            case Standing.FULL:
                assert self._document is not None
                return StoreRemark(
                    f"no subnet is free in {self._document.network}",
                    "delete the lease of a host that is gone with `etcdctl del`, or widen Network in "
                    f"{self._path}",
                )
            case Standing.COPY:
                return StoreRemark(
                    f"somebody else holds the lease of {self._tenancy.claimant.address}",
                    "stop flanneld if it runs here, or give each host behind that address one of its own with "
                    "--endpoint, and start the agent again",
                )
        return None

    def take_keys(self, keys: OwnKeys, document: Config, members: Members) -> StoreRemark | None:  # noqa: ARG002
        """Tell others the following key, which does not need to be vouched for here."""
        told = keys.following or keys.current
        claimant = self._tenancy.claimant
        agent = replace(claimant.agent, public_key=told, other_key=keys.other_than(told))
        self._tenancy.claimant = replace(claimant, agent=agent)
        return None

    def told_key(self) -> bytes | None:
        """Return the public key in this host's lease."""
        agent, everybody = (
            self._tenancy.claimant.agent,
            self._members.everybody if self._members is not None else (),
        )
        said = (placed.value.agent for placed in everybody)
        return next(
            (each.public_key for each in said if each is not None and each.instance == agent.instance), None
        )

    def _subnets(self) -> tuple[IPv4Network, ...]:
        return tuple(each for each in self._tenancy.subnets if isinstance(each, IPv4Network))


def _read_endpoint(text: str | None) -> tuple[IPv4Address | None, int | None]:
    """Return the address and the port that --endpoint names; None for what it does not.  Raises MemberError."""
    if text is None:
        return None, None
    endpoint = Endpoint.parse(text, 1)
    if not isinstance(endpoint.address, IPv4Address):
        raise MemberError(
            f"--endpoint {text} is not an IPv4 address, as flannel's leases have one; write that"
        )
    has_port = Endpoint.parse(text, 2).port == endpoint.port
    return endpoint.address, endpoint.port if has_port else None
