"""The services as the forwarder has them, and the commands that make them what they should be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from overlay.link.messages import OWN
from overlay.link.service_messages import RemoveService
from overlay.services import instructions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from overlay.config import Node
    from overlay.link.messages import Command
    from overlay.roster import Roster
    from overlay.services.directors import Directors
    from overlay.services.watching import Watching
    from peers.addresses import Address
    from peers.service import Service


class _PeerGoneError(Exception):
    """The forwarder does not know a peer that a service names."""


class Forwarded:
    """The services as the forwarder has them after the yielded commands, all of which must be sent in order.

    *elsewhere* returns the weights of a service's servers as other directors see them.
    """

    def __init__(
        self,
        roster: Roster,
        watching: Watching,
        directors: Directors,
        elsewhere: Callable[[Service], Sequence[tuple[int, list[int]]]],
    ) -> None:
        self._roster, self._watching, self._directors, self._elsewhere = (
            roster,
            watching,
            directors,
            elsewhere,
        )
        self.numbers = instructions.Numbers()
        """The numbers of services and servers in the forwarder."""
        self.services: dict[str, Service] = {}
        """The services that it has, by name."""
        self._settings: dict[str, Command] = {}  # of each service
        self._servers: dict[str, Command] = {}  # and its servers
        self._ways: dict[Address, int] = {}

    def forget(self) -> None:
        """Start over with a new forwarder, which has nothing."""
        self.services, self._settings, self._servers, self._ways = {}, {}, {}, {}

    def changes(self, node: Node) -> Iterator[Command]:
        """Yield the commands that change the forwarder's services to those of *node*."""
        table = node.table
        wanted = {name: health.service for name, health in self._watching.healths.items()}
        for name, service in wanted.items():
            number = self.numbers.service(name)
            settings = instructions.set_service(
                service, number, node.own.name, lambda peer: self.number(node, peer)
            )
            if self._settings.get(name) != settings:
                self._settings[name] = settings
                yield settings
            yield from self.servers(node, name)
        yield from self.ways(node)
        if table.services or self.services:
            yield instructions.set_permits(table, node.own, lambda peer: self.number(node, peer))
        for name in self.services.keys() - wanted.keys():
            self._servers.pop(name, None)
            self._settings.pop(name, None)
            yield RemoveService(self.numbers.service(name))
        self.services = wanted

    def servers(self, node: Node, name: str) -> Iterator[Command]:
        """Yield the command with the servers of a service, if the forwarder has them differently."""
        with contextlib.suppress(_PeerGoneError):  # the peers are being changed, and all changes follow
            health = self._watching.healths[name]
            command = instructions.set_servers(
                health, self.numbers, lambda peer: self.number(node, peer), self._elsewhere(health.service)
            )
            if self._servers.get(name) != command:
                self._servers[name] = command
                yield command

    def ways(self, node: Node) -> Iterator[Command]:
        """Yield the command that changes which directors virtual addresses lead to, if that has changed."""
        with contextlib.suppress(_PeerGoneError):
            ways = instructions.ways(
                node.table, node.own, self._directors.active, lambda peer: self.number(node, peer)
            )
            change = instructions.change_ways(self._ways, ways)
            self._ways = ways
            if change is not None:
                yield change

    def number(self, node: Node, peer: str) -> int:
        """Return the number of a peer.  Raises _PeerGoneError if a reload in progress has removed it."""
        if peer == node.own.name:
            return OWN
        remote = self._roster.by_name.get(peer)
        if remote is None:
            raise _PeerGoneError
        return remote.number
