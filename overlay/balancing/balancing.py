"""Virtual services at a running node: sets up the forwarder, checks servers, exchanges state with other directors."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import trio

from overlay.balancing import commands, journal
from overlay.balancing.counting import Counting
from overlay.balancing.dialer import DialedServer, TunnelDialer
from overlay.balancing.exchanges import Exchanges
from overlay.balancing.flow_pages import FlowPages
from overlay.balancing.forwarded import Forwarded
from overlay.balancing.on_lan import look_at_lan
from overlay.balancing.pins import Pins
from overlay.balancing.probing import Probing
from overlay.balancing.returned_packets import ReturnedPackets
from overlay.balancing.shared import Shared
from overlay.errors import PacketError
from overlay.hooks.happening import tell_nobody
from overlay.host import clock
from overlay.lan.lan import Lan
from overlay.link.messages import SendControl
from overlay.link.service_messages import Flows, Pinned, ServiceCounters
from overlay.services.directors import ActiveChanged, Directors
from overlay.services.watching import Watching
from overlay.wire import control
from overlay.wire.control import Presence
from overlay.wire.service_control import SettingsHeard, SettingsTold, StandingsTold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from overlay.config import Node
    from overlay.hooks.happening import Tell
    from overlay.host.netlink.fib import Link
    from overlay.link.messages import Command, ControlReceived, ServiceReport
    from overlay.roster import Roster
    from overlay.services import instructions
    from overlay.services.directors import Output
    from overlay.services.health import ByHand
    from overlay.services.watching import DueCheck, News
    from peers.service import Service

# Ours
LAN_INTERVAL = 5.0  # seconds between looks at the networks of this host
PAUSE = 0.05  # seconds between two looks at the results of checks: when a host fails, many checks fail
SHARE = 0.2  # of a processor, at most, for these looks


class Balancing:
    """The services of the node in force.  *tell* sends commands to the forwarder; its reports go to take()."""

    def __init__(
        self,
        node: Node,
        roster: Roster,
        tell: Callable[[Command], Awaitable[None]],
        links: Callable[[], Sequence[Link]],
    ) -> None:
        """*links* returns the networks that this host is on."""
        self._node, self._roster, self._tell, self._links = node, roster, tell, links
        self.heard: Tell = tell_nobody
        self.lan = Lan(journal.log_router, journal.log_conflict)
        self.directors = Directors(node.own.name)
        self.watching = Watching(lambda: int.from_bytes(os.urandom(4), "big") / 2**32)
        self._nursery: trio.Nursery | None = None
        self._pins = Pins(tell)
        self.counting = Counting(
            tell, lambda: sum(1 + len(each.entries) for each in self._forwarded.services.values())
        )
        self.flow_pages = FlowPages(tell)
        self.shared = Shared(node.own.name, self.watching, roster, tell, self._apply)
        self._forwarded = Forwarded(roster, self.watching, self.directors, self.shared.sharing.elsewhere)
        self._exchanges = Exchanges(self._pins)
        self._returned = ReturnedPackets(lambda: self._node, roster, tell)
        self._probing = Probing(
            self.watching, self.dialer_for, self._exchanges, self._pins.waiting, self._note_change
        )
        self._wake, self._changed = trio.Event(), trio.Event()
        self._is_on_lan = False
        self._take(node, clock.now())

    def _take(self, node: Node, now: float) -> list[News]:
        self._node = node
        services, own = node.table.services, node.own.name
        groups = dict.fromkeys(each.directors for each in services.values() if each.directors)
        in_band = node.table.network.bulk
        unheard = [
            name for name, each in node.tunnels.items() if not (in_band and each.encapsulation.is_encrypted)
        ]
        journal.log_active(self.directors.adopt([each for each in groups if each], now, unheard))
        directed = {name: each for name, each in services.items() if each.is_directed_by(own)}
        news = self.watching.adopt(directed, now, {each.version for each in node.own.addresses})
        return news + self.shared.adopt(node, unheard, now)

    # Commands for the forwarder

    def everything(self) -> Iterator[Command]:
        """Yield the commands for a new forwarder, once it knows the peers and their prefixes.

        Send all of them before anything else happens: from then on, only differences from them are sent.
        """
        self._forwarded.forget()
        self.counting.forget()
        yield from self._forwarded.changes(self._node)
        yield from self._pins.everything()

    async def adopt(self, node: Node) -> None:
        """Switch to the services of *node*, whose peers the forwarder knows already."""
        self._returned.wake()
        if not node.table.services and not self._node.table.services:
            self._node = node
            return
        news = self._take(node, clock.now())
        await self._send(self._forwarded.changes(node))
        self._heed(news)
        self._probing.wake()
        self.counting.wake()
        self._wake.set()

    async def _send(self, commands: Iterable[Command]) -> None:
        for command in commands:
            await self._tell(command)

    # Events

    async def run(self) -> None:
        """Check servers and listen to other directors, forever."""
        async with trio.open_nursery() as self._nursery:
            nursery = self._nursery
            nursery.start_soon(self.lan.run)
            nursery.start_soon(self._returned.run)
            nursery.start_soon(self.shared.run)
            nursery.start_soon(self.counting.keep_counting)
            nursery.start_soon(self._pins.run)
            nursery.start_soon(self._exchanges.run)
            nursery.start_soon(self._probing.run)
            nursery.start_soon(self._follow_checks)
            while True:
                now = clock.now()
                self._look_at_lan()
                await self._carry_out(self.directors.handle_deadline(now))
                due = self.directors.next_deadline()
                if self.watching.healths:
                    due = min(due, now + LAN_INTERVAL)
                self._wake = trio.Event()
                with trio.move_on_after(math.inf if due == math.inf else max(0.0, due - clock.now())):
                    await self._wake.wait()

    def _look_at_lan(self) -> None:
        """Set the virtual addresses that this host has on its links, and what VRRP tracks."""
        healths = self.watching.healths
        if not healths and not self._is_on_lan:
            return
        self._is_on_lan = bool(healths)
        remotes = self._roster.by_number.values()
        look_at_lan(self.lan, self._links(), healths, self.directors, self._node.own.name, remotes)

    def awaits(self, report: ServiceReport) -> bool:
        """Return whether *report* is awaited and its answer is not too long already."""
        match report:
            case Pinned():
                return self._pins.awaits(report)
            case ServiceCounters():
                return self.counting.awaits(report)
        return self.flow_pages.awaits(report)

    async def take(self, report: ControlReceived | ServiceReport) -> bool:
        """Take a report of the forwarder; return False for one that is not awaited or has no meaning."""
        match report:
            case Pinned():
                return self._pins.take(report)
            case ServiceCounters():
                return self.counting.take(report)
            case Flows():
                return self.flow_pages.take(report)
        remote = self._roster.by_number.get(report.peer)
        try:
            message = control.parse(report.payload)
        except PacketError:
            return False
        match message:
            case Presence() if remote is not None:
                await self._carry_out(self.directors.heard(remote.peer.name, message, clock.now()))
                self._wake.set()
            case SettingsTold() | SettingsHeard() | StandingsTold() if remote is not None:
                await self.shared.take(remote, message)
                for name in self.shared.restood():
                    await self._send(self._forwarded.servers(self._node, name))
        return True

    async def met(self, number: int) -> None:
        """Note that a session with a peer has begun."""
        self._pins.sight.met(number, clock.now())
        if number in self._roster.by_number:
            self.shared.met(self._roster.by_number[number].peer.name)
            await self._carry_out(self.directors.met(self._roster.by_number[number].peer.name))

    async def lost(self, number: int) -> None:
        """Note that a peer does not answer."""
        if number in self._roster.by_number:
            name = self._roster.by_number[number].peer.name
            await self._carry_out(self.directors.lost(name, clock.now()))

    async def _carry_out(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, ActiveChanged):
                self._wake.set()
                await self._send(self._forwarded.ways(self._node))
                continue
            peers = output.peers
            numbers = (
                []
                if peers is None
                else [
                    self._forwarded.number(self._node, name) for name in peers if name in self._roster.by_name
                ]
            )
            if numbers or peers is None:
                await self._tell(SendControl(numbers, control.build(output.presence)))
        journal.log_active(outputs)

    async def _follow_checks(self) -> None:
        """Apply the results of checks, forever.  Changes at about the same time are applied together."""
        while True:
            self._changed = trio.Event()
            began = clock.now()
            if await self.look():
                await trio.sleep(max(PAUSE, (clock.now() - began) / SHARE))
            due = self.watching.next_step()
            with trio.move_on_after(math.inf if due == math.inf else max(0.0, due - clock.now())):
                await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()

    async def look(self) -> bool:
        """Apply results of checks and the steps of slow starts now; return whether there was any effect."""
        looked = self.watching.look(clock.now())
        for name in looked.services:
            await self._send(self._forwarded.servers(self._node, name))
        self._heed(looked.news)
        if looked.services:
            self.shared.changed()
        return bool(looked.services)

    def _heed(self, news: list[News]) -> None:
        """Log *news* about servers, and pass them to hooks, directors and the commands of services."""
        journal.log_news(news)
        journal.tell_news(news, self.heard)
        if news:
            self._wake.set()
            if self._nursery is not None:
                self._nursery.start_soon(self._run_commands, news)

    # Questions

    def active(self, service: Service) -> str:
        """Return the director that this node sends packets for *service* to: itself if it is one."""
        if service.directors is None or self._node.own.name in service.directors:
            return self._node.own.name
        return self.directors.active(service.directors)

    @property
    def node(self) -> Node:
        """The node in force."""
        return self._node

    @property
    def numbers(self) -> instructions.Numbers:
        """The numbers of services and servers in the forwarder."""
        return self._forwarded.numbers

    async def _apply(self, service: str, key: str, by_hand: ByHand) -> None:
        """Apply here what was set by hand, here or at another director."""
        news = self.watching.set_by_hand(service, key, by_hand, clock.now())
        journal.log_by_hand(service, key, by_hand)
        await self._send(self._forwarded.servers(self._node, service))
        self._heed(news)
        self.shared.changed()
        self._changed.set()

    def dialer_for(
        self, probe: DueCheck, make: Callable[[DialedServer], TunnelDialer] = TunnelDialer
    ) -> TunnelDialer:
        """Return the dialer of a check, made by *make*."""
        name = probe.service.name
        target = self.numbers.service(name), self.numbers.server(name, probe.server.key)
        remote = self._roster.by_name.get(probe.server.peer)  # None: this node itself
        behind = remote.number if remote is not None and remote.encapsulation.is_encrypted else None
        return make(DialedServer(self._pins, target, self._node.own.addresses, probe, behind))

    async def _run_commands(self, news: list[News]) -> None:
        for name, event in news:
            service = self._forwarded.services.get(name)
            if service is not None:
                await commands.run(service, event)
