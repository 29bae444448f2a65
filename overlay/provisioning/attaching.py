"""The containers of a running node: one change at a time, in a worker thread, with the current subnets and MTU."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from overlay.containers.subnets import Offer, offer
from overlay.errors import HostError
from overlay.host import control
from overlay.host.attaching import SUFFIX, Attaching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overlay.config import Node, Options
    from overlay.containers.addresses import Holder, IPAddress, IPNetwork
    from overlay.containers.attachments import Attachment
    from overlay.host.attaching import Attached, InterfaceRequest
    from overlay.host.netlink.container_namespace import ContainerNamespace
    from overlay.provisioning.setup import HostSetup

T = TypeVar("T")

log = logging.getLogger("overlay")


class NoSubnetError(HostError):
    """The host has no subnet for containers at the moment."""


class Containers:
    """Attaches containers and detaches them.  *node* returns the current node."""

    def __init__(self, host: HostSetup, options: Options, node: Callable[[], Node]) -> None:
        self._host, self._options, self._node = host, options, node
        self._attaching: Attaching | None = None
        self._record: Path | None = None
        self._changing = trio.Lock()
        self._thread = trio.CapacityLimiter(1)  # its own, so that nothing else delays a container
        self._wanted = trio.Event()
        self._offered: tuple[IPNetwork, ...] = ()

    @property
    def attached(self) -> int:
        """Return how many interfaces containers have."""
        return 0 if self._attaching is None else len(self._attaching.attachments.by_holder)

    @property
    def offered(self) -> tuple[IPNetwork, ...]:
        """The subnets that addresses were last taken from; empty before the first request, and while the host has
        none.
        """
        return self._offered

    # Requests

    async def offer(self) -> Offer:
        """Return the subnets and addresses on offer.  Raises NoSubnetError, which says why there are none."""
        return await self._do(self._offer)

    async def subnets(self) -> tuple[IPNetwork, ...]:
        """Return the subnets that addresses are taken from.  Raises NoSubnetError, which says why there are none."""
        return (await self.offer()).subnets

    async def lend(self, holder: Holder, version: int, wanted: IPAddress | None) -> IPAddress:
        """Give *holder* one more address of that IP version without an interface: *wanted*, or any.

        Raises NoSubnetError, AddressError and HostError.
        """
        return await self._do(lambda at: at.lend(holder, version, wanted, self._offer(at)))

    async def give_back(self, holder: Holder, address: IPAddress) -> None:
        """Take *address* back from *holder*, if it has it.  Raises HostError."""
        await self._do(lambda at: at.give_back(holder, address))

    async def attach(self, wanted: InterfaceRequest, inside: ContainerNamespace | None = None) -> Attached:
        """Make an interface for a container; without *inside*, its inner end stays on the host, to be moved.

        Raises NoSubnetError, AddressError, StandsError and HostError, and leaves nothing behind.
        """

        def attach(at: Attaching) -> Attached:
            offered = Offer(()) if wanted.held_by is not None else self._offer(at)
            return at.attach(wanted, offered, self._host.mtu, inside)

        made = await self._do(attach)
        addresses = ",".join(map(str, made.addresses))
        log.info(
            "container attached network=%s container=%s interface=%s addresses=%s device=%s",
            wanted.holder.network, wanted.holder.container, wanted.holder.interface, addresses, made.outer,
        )  # fmt: skip
        self.want()
        return made

    async def detach(self, holder: Holder) -> None:
        """Remove the interface and the addresses of *holder*; what is gone already is not an error.  Raises
        HostError.
        """
        if await self._do(lambda at: at.detach(holder)):
            _log_detached(holder, "asked")
        self.want()

    async def check(self, holder: Holder, inside: ContainerNamespace | None) -> Attachment:
        """Return the attachment of *holder*.  Raises HostError that says what is wrong with it."""
        return await self._do(lambda at: at.check(holder, self._host.mtu, inside))

    async def collect(self, network: str, valid: set[tuple[str, str]]) -> list[Holder]:
        """Detach everything in *network* that does not belong to the *valid* containers and interfaces.  Raises
        HostError.
        """
        removed = await self._do(lambda at: at.collect(network, valid))
        for holder in removed:
            _log_detached(holder, "unknown to the runtime")
        self.want()
        return removed

    async def all(self) -> tuple[Attachment, ...]:
        """Return all attachments.  Raises HostError."""
        return await self._do(lambda at: tuple(at.attachments.by_holder.values()))

    # Upkeep

    def want(self) -> None:
        """Check the containers soon: routes, MTU or subnets may have changed."""
        self._wanted.set()

    async def run(self) -> None:
        """Take over what an earlier agent left, then keep containers in order, until cancelled."""
        self.want()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if self._attaching is None and not self._path().exists():
                continue  # there are no containers
            try:
                gone = await self._do(self._look)
            except HostError as error:
                log.error("containers could not be maintained: %s", error)  # noqa: TRY400  it says enough
                continue
            for holder in gone:
                _log_detached(holder, "its namespace is gone")

    def _look(self, attaching: Attaching) -> list[Holder]:
        gone = attaching.look(self._host.mtu)
        try:
            attaching.bar(self._offer(attaching).subnets)
        except NoSubnetError:
            attaching.bar(())
        return gone

    def _offer(self, attaching: Attaching) -> Offer:
        node = self._node()
        table, own = node.table, node.own
        services = table.services.values()
        found = offer(
            own.subnets,
            attaching.elsewhere(own.subnets),
            (
                *(address for peer in table.peers.values() for address in peer.addresses),
                *(address for service in services for address in service.addresses),
            ),
            [
                server.address
                for service in services
                for server in service.entries_at(own.name)
                if server.address is not None
            ],
        )
        self._offered = found.subnets
        if found.subnets:
            return found
        if found.taken:
            raise NoSubnetError(
                f"this host already has a route into {found.taken[0]}, by an interface or a gateway, so containers get "
                f"no addresses from it: remove that route, or give peers.{own.name} another subnet"
            )
        raise NoSubnetError(f"peers.{own.name} has no subnet for containers: give it one in its subnets")

    async def _do(self, call: Callable[[Attaching], T]) -> T:
        """Return the result of *call*, run in a thread while nothing else changes."""
        async with self._changing:
            return await trio.to_thread.run_sync(lambda: call(self._open()), limiter=self._thread)

    def _path(self) -> Path:
        """Return where the record is; it stays the same while the agent runs.  Raises HostError."""
        if self._record is None:
            socket = control.control_path(self._options.interface, control.own_directory())
            self._record = socket.with_suffix(SUFFIX)
        return self._record

    def _open(self) -> Attaching:
        """Return the Attaching, which is opened at the first request.  Raises HostError."""
        if self._attaching is None:
            opened = Attaching(self._options.interface, self._path())
            if opened.trouble is not None:
                log.error("%s", opened.trouble)
            self._attaching = opened
            stand, undone = opened.take_over(self._host.mtu)
            if stand or undone:
                log.info("containers taken over attached=%d gone=%d", stand, undone)
        return self._attaching


def _log_detached(holder: Holder, cause: str) -> None:
    log.info(
        "container detached network=%s container=%s interface=%s cause=%s",
        holder.network, holder.container, holder.interface, cause,
    )  # fmt: skip
