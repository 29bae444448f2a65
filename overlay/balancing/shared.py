"""What this director and the others tell each other about servers: the edge of overlay.services.sharing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from overlay.host import clock
from overlay.link.messages import SendControl
from overlay.services.health import ByHand
from overlay.services.settings import Settings
from overlay.services.sharing import Sharing
from overlay.wire import control

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from overlay.config import Node
    from overlay.link.messages import Command
    from overlay.roster import Remote, Roster
    from overlay.services.sharing import Say, ServiceMessage
    from overlay.services.watching import News, Watching
    from peers.service import Server, Service

# Ours
PATIENCE = 4.0  # seconds at most for the other directors to confirm a setting


class Shared:
    """The settings and standings of the services that this node directs.  *tell* sends commands to the forwarder.

    *apply* puts into effect here what was set by hand for a server, given by the service's name and the server's key.
    """

    def __init__(
        self,
        own: str,
        watching: Watching,
        roster: Roster,
        tell: Callable[[Command], Awaitable[None]],
        apply: Callable[[str, str, ByHand], Awaitable[None]],
    ) -> None:
        self._watching, self._roster, self._tell, self._apply = watching, roster, tell, apply
        self._settings = Settings()
        self.sharing = Sharing(own, self._settings, lambda: watching.healths)
        self._wake, self._stirred = trio.Event(), trio.Event()

    def adopt(self, node: Node, deaf: Collection[str], now: float) -> list[News]:
        """Use the services of *node*, which *watching* has already; peers in *deaf* cannot receive messages."""
        everybody = [name for name, peer in node.table.peers.items() if peer.is_agent]
        services = [health.service for health in self._watching.healths.values()]
        self.sharing.adopt(services, everybody, deaf, now)
        self._wake.set()
        return [
            event
            for service, key, by_hand in self._unapplied()
            for event in self._watching.set_by_hand(service, key, by_hand, now)
        ]

    async def run(self) -> None:
        """Keep the other directors informed, forever."""
        while True:
            for said in self.sharing.handle_deadline(clock.now()):
                await self._say(said)
            self._stir()
            due = self.sharing.next_deadline()
            self._wake = trio.Event()
            with trio.move_on_after(math.inf if due == math.inf else max(0.0, due - clock.now())):
                await self._wake.wait()

    async def take(self, remote: Remote, message: ServiceMessage) -> None:
        """Handle a message of a peer; messages that it has no right to send are counted."""
        said = self.sharing.heard(remote.peer.name, message, clock.now())
        if said is None:
            remote.foreign += 1
            return
        for each in said:
            await self._say(each)
        for service, key, by_hand in list(self._unapplied()):
            await self._apply(service, key, by_hand)
        self._stir()

    def restood(self) -> set[str]:
        """Return the services, among those watched here, whose servers another director now sees differently."""
        return self.sharing.restood() & self._watching.healths.keys()

    def met(self, peer: str) -> None:
        """Note that a session with *peer* has begun."""
        self.sharing.met(peer, clock.now())
        self._wake.set()

    def changed(self) -> None:
        """Note that the state of servers has changed."""
        self.sharing.changed(clock.now())
        self._wake.set()

    async def set_by_hand(self, service: Service, server: Server, by_hand: ByHand) -> list[str]:
        """Apply *by_hand* to *server* here and at the other directors; return those that have not confirmed it."""
        telling = self.sharing.set_by_hand(
            service, server, by_hand, clock.wall_ns() // 1_000_000, clock.now()
        )
        self._wake.set()
        await self._apply(service.name, server.key, by_hand)
        with trio.move_on_after(PATIENCE):
            while not telling.is_over:
                await self._stirred.wait()
        return sorted(telling.missing)

    def _unapplied(self) -> Iterable[tuple[str, str, ByHand]]:
        healths = self._watching.healths
        for service, key, by_hand in self._settings.by_hand():
            if service in healths and healths[service].by_hand.get(key, ByHand()) != by_hand:
                yield service, key, by_hand

    async def _say(self, said: Say) -> None:
        known = self._roster.by_name
        numbers = [known[name].number for name in said.peers or () if name in known]
        if numbers or said.peers is None:
            await self._tell(SendControl(numbers, control.build(said.message)))

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()
