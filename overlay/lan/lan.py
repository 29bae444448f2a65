"""The task of the LAN side of directors: it waits for advertisements, requests of neighbours, and deadlines.

It does not know the agent: events are reported by calls, and its inputs are set by methods, which may be called at any
time from the same thread, even before run().
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import trio

from overlay.errors import HostError
from overlay.host import clock
from overlay.host.claims import Claims
from overlay.host.netlink.lan_interfaces import LanInterfaces
from overlay.lan.memberships import Tracked, on_link
from overlay.lan.presence import LanPresence
from overlay.lan.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from overlay.host.neighbours import Neighbours
    from overlay.host.netlink.fib import Link
    from overlay.host.netlink.lan_interfaces import Interface
    from overlay.host.plan import IPAddress
    from overlay.host.sockets.vrrp_sockets import VrrpSocket
    from overlay.lan.conflicts import Conflict
    from overlay.lan.memberships import Membership
    from overlay.lan.router import RouterStatus


class Socket(Protocol):
    """A socket that can be waited on."""

    @property
    def is_open(self) -> bool:
        """Return whether it is not closed yet."""

    def fileno(self) -> int:
        """Return the descriptor."""


# Ours
POLL = 1.0  # seconds between checks of the interfaces, for changes that were not reported
BREATH = 0.02  # seconds of rest if more waits than one turn takes: a flood costs only a few per cent
REST = 0.25  # seconds between two reads of claims of others, which are not urgent and may be a flood, too

WITHOUT_VRRP = "without VRRP"  # the key of such addresses; groups have tuples


class Lan:
    """The virtual routers of this node, and the virtual addresses that are here."""

    def __init__(
        self,
        changed: Callable[[RouterStatus], None],
        contested: Callable[[Conflict], None],
        now: Callable[[], float] = clock.now,
    ) -> None:
        """*changed* is called with each router whose state, or its reason, changes.

        *contested* is called with each address that another host begins to claim while it is here.
        """
        self._report, self._contested, self._now = changed, contested, now
        # Inputs
        self._members: dict[str, Membership] = {}
        self._own: frozenset[IPAddress] = frozenset()
        self._links: Sequence[Link] = ()
        self._is_overlay_up = False
        self._without_quorum: frozenset[str] = frozenset()
        # State
        self._routers: dict[tuple[str, int], Router] = {}
        self._presence = LanPresence(self._attend, trio.lowlevel.notify_closing)
        self._interfaces: LanInterfaces | None = None
        self._seen: dict[str | int, Interface | None] = {}
        self._look_at = 0.0
        self._trouble: tuple[str, ...] = ()
        self._nursery: trio.Nursery | None = None
        self._wake = trio.Event()

    # Inputs

    def configure(self, members: Iterable[Membership]) -> None:
        """Take part in exactly these groups.

        A group that is kept keeps its state, unless its virtual router, version or interface changes.
        """
        self._members = {member.name: member for member in members}
        self._look()

    def hold(self, addresses: Iterable[IPAddress]) -> None:
        """Hold exactly these addresses here, without VRRP, on each link that they are on.

        They must not be addresses of a group, which decides who has them.
        """
        self._own = frozenset(addresses)
        self._look()

    def set_links(self, links: Sequence[Link]) -> None:
        """Set the networks that this host is on; call this at each change of the host's network."""
        self._links = links
        self._look()

    def set_overlay(self, *, is_up: bool) -> None:
        """Set whether the overlay is up here; at first it is not."""
        if is_up is not self._is_overlay_up:
            self._is_overlay_up = is_up
            self._look()

    def set_quorums(self, without: Iterable[str]) -> None:
        """Set the services that lack their quorum."""
        names = frozenset(without)
        if names != self._without_quorum:
            self._without_quorum = names
            self._look()

    # State

    def status(self) -> list[RouterStatus]:
        """Return the state of each virtual router."""
        return [router.status() for router in self._routers.values()]

    @property
    def troubles(self) -> tuple[str, ...]:
        """Return a sentence on each problem that prevents answers to neighbours."""
        return (*self._trouble, *self._presence.troubles)

    def conflicts(self) -> list[Conflict]:
        """Return the addresses that are here and that other hosts claim, with those hosts."""
        return self._presence.conflicts()

    # The task

    async def run(self) -> None:
        """Take part until cancelled; then inform the others at once.  Raises HostError without netlink."""
        self._interfaces = LanInterfaces()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._look()
                while True:
                    self._wake = trio.Event()
                    with trio.move_on_after(max(0.0, self._next_deadline() - self._now())):
                        await self._wake.wait()
                    self._handle_deadlines()
        finally:
            self._stop()

    def _next_deadline(self) -> float:
        routers = (router.next_deadline() for router in self._routers.values())
        return min(self._look_at, self._presence.next_deadline(), *routers)

    def _handle_deadlines(self) -> None:
        now = self._now()
        for router in list(self._routers.values()):
            router.handle_deadline(now)
        if now >= self._look_at:
            self._look()
        self._settle()
        self._presence.handle_deadline(now)
        for conflict in self._presence.settle(now):
            self._contested(conflict)

    def _look(self) -> None:
        """Check the interfaces, keep a router for each group and IP version, and apply what is tracked."""
        self._wake.set()
        if self._nursery is None or self._interfaces is None:
            return
        now = self._now()
        near: dict[str | int, frozenset[IPAddress]] = dict(on_link(self._own, self._links).items())
        tracked = {each for member in self._members.values() for each in member.vrrp.track_interfaces}
        needed: set[str | int] = {*tracked, *near, *(each.interface for each in self._members.values())}
        self._look_at = now + POLL if needed else math.inf
        try:
            self._seen = {each: self._interfaces.read(each) for each in needed}
        except HostError as error:  # the next look may succeed; until then, nothing changes
            self._trouble = (str(error),)
            return
        self._trouble = ()
        down = frozenset(name for name in tracked if (at := self._seen[name]) is None or not at.is_up)
        state = Tracked(down, self._without_quorum, self._is_overlay_up)
        self._have_routers(now)
        for (name, _), router in list(self._routers.items()):
            member = self._members[name]
            router.look(member, self._seen[member.interface], state, now)
        if near:
            self._presence.hold(WITHOUT_VRRP, near, now)
        else:
            self._presence.release(WITHOUT_VRRP)
        self._settle()

    def _have_routers(self, now: float) -> None:
        wanted = {
            (member.name, version): member
            for member in self._members.values()
            for version in (4, 6)
            if member.of_version(version)
        }
        for key, router in list(self._routers.items()):
            if key not in wanted or _speaks_for(wanted[key]) != _speaks_for(router.member):
                router.stop(now)
                self._presence.release(key)
                del self._routers[key]
        for key, member in wanted.items():
            if key not in self._routers:
                self._routers[key] = Router(member, key[1], self._changed, self._listen_to, now)

    def _settle(self) -> None:
        """Hold the addresses for which this node is the active router."""
        now = self._now()
        for key, router in list(self._routers.items()):
            if router.is_active:
                addresses = frozenset(router.member.of_version(router.version))
                self._presence.hold(key, {router.member.interface: addresses}, now)
            else:
                self._presence.release(key)
        self._presence.look(self._seen, now)

    def _changed(self, router: Router) -> None:
        self._report(router.status())

    def _stop(self) -> None:
        self._nursery = None
        now = self._now()
        for router in self._routers.values():
            router.stop(now)
        self._routers.clear()
        self._presence.close()
        if self._interfaces is not None:
            self._interfaces.close()
            self._interfaces = None

    # Sockets

    def _attend(self, socket: Neighbours | Claims) -> None:
        assert self._nursery is not None
        if isinstance(socket, Claims):
            self._nursery.start_soon(
                self._wait_on, socket, lambda: self._presence.hear(socket, self._now()), REST
            )
        else:
            self._nursery.start_soon(self._wait_on, socket, socket.answer)

    def _listen_to(self, router: Router, socket: VrrpSocket) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._wait_on, socket, lambda: self._receive(router))

    def _receive(self, router: Router) -> bool:
        has_more = router.receive(self._now())
        self._settle()
        self._wake.set()
        return has_more

    async def _wait_on(self, socket: Socket, handle: Callable[[], bool], rest: float = BREATH) -> None:
        """Call *handle* whenever *socket* can be read, until it is closed; rest if *handle* says that more may wait."""
        while socket.is_open:
            try:
                await trio.lowlevel.wait_readable(socket)
            except trio.ClosedResourceError:
                return
            if socket.is_open and handle():
                await trio.sleep(rest)


def _speaks_for(member: Membership) -> tuple[object, ...]:
    return member.vrrp.router, member.vrrp.version, member.interface
