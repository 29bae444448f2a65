"""Keeps the host in the state that the current node needs, while peers move and other programs change the host."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from overlay import config
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.notes import HostNotes, Reading
from overlay.ending import StoppedError
from overlay.errors import HostError
from overlay.host import clock
from overlay.host.tun import RemovedError
from overlay.link.messages import RenewSources
from overlay.provisioning import changes, planning
from overlay.provisioning.attaching import Containers
from overlay.provisioning.filtering import Filtering
from overlay.provisioning.relocations import Relocations
from overlay.provisioning.subnet_files import SubnetFiles
from overlay.resolver import literal
from overlay.supervision import introduction
from overlay.troubles import unkeyed

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.config import Node, Options
    from overlay.engine import Engine
    from overlay.provisioning.planning import Endpoints, Planned
    from overlay.provisioning.setup import HostSetup
    from overlay.roster import Remote
    from overlay.supervision.supervisor import Supervisor
    from overlay.wire.addresses import Sockaddr

T = TypeVar("T")

UNSET_CLOCK = Finding("clock", "the clock shows a time before 2020, so peers may refuse this node", "set it")

log = logging.getLogger("overlay")


class Upkeep:
    """The host under a running node.

    *node* returns the current one.  Hold *changing* while host, table and forwarder change together.
    """

    def __init__(
        self,
        host: HostSetup,
        options: Options,
        node: Callable[[], Node],
        engine: Engine,
        supervisor: Supervisor,
    ) -> None:
        self.host = host
        self.changing = trio.Lock()
        self.notes = HostNotes(self._look_at_host, self._read_host)
        self.filtering = Filtering(host.rules, options, self._look_again)
        self.containers = Containers(host, options, node)
        self._options, self._node, self._engine, self._supervisor = options, node, engine, supervisor
        self._subnet_files = SubnetFiles(options)
        self._planner = trio.CapacityLimiter(1)  # a separate thread, so that nothing slow delays a plan
        self._plan_wanted = trio.Event()
        self._relocations = Relocations(self._is_affected_by, self._want_plan)

    # The plan

    def set_up(self) -> None:
        """Set the host up for the node.  Raises HostError."""
        node = self._node()
        self.host.adopt(node, self._endpoints(node))
        if self._options.fix_sysctl:
            self.host.fix_settings(node)
        self.filtering.set_up(node)
        self._subnet_files.write(node, self.host.mtu)
        self.notes.look()

    async def foresee(self, node: Node) -> tuple[Endpoints, Planned]:
        """Return the endpoints of *node*'s peers and the plan for the host, computed in a worker thread."""
        self._relocations.begin()
        endpoints = await self.compute(self._endpoints, node)
        paths = self.host.ask_paths(node, endpoints)
        return endpoints, await self.compute(planning.plan, node, endpoints, paths, self.host.interface)

    async def compute(self, call: Callable[..., T], *arguments: object) -> T:
        """Return the result of *call*, run in a worker thread because it takes long, though it waits for nothing."""
        return await trio.to_thread.run_sync(call, *arguments, limiter=self._planner)

    def adopted(self) -> None:
        """Examine the host again, after it has adopted a node that is now the current one."""
        self._relocations.end()
        self.filtering.adopt(self._node())
        self._look_again()

    async def replan(self) -> None:
        """Compute routes and MTU again from the endpoints known now."""
        async with self.changing:
            node, mtu, asks = self._node(), self.host.mtu, bool(self.host.paths)
            try:
                self.host.adopt(node, *await self.foresee(node))
                self._relocations.end()
            except HostError as error:
                log.error("routes could not be updated: %s", error)  # noqa: TRY400  it says enough
                self.notes.look()
                return
            self._look_again()
            if self.host.mtu != mtu:
                self._engine.journal.mtu_changed(self.host.mtu, mtu, clock.now())
            if (self.host.mtu, bool(self.host.paths)) != (mtu, asks):
                await self._supervisor.tell(*introduction.describe_node(node, self.host))

    # Peers that move

    def moved(self, remote: Remote) -> None:
        """Note that *remote* has moved: routes and MTU may have to change."""
        self._relocations.moved(remote, clock.now(), is_planning=self.changing.locked())

    def turn(self, now: float) -> None:
        """Do what is due each second."""
        self.host.close_left(now)
        self._relocations.turn(now)

    async def follow_peers(self) -> None:
        """Plan again after peers have moved, with pauses between two plans."""
        while True:
            await self._plan_wanted.wait()
            self._plan_wanted = trio.Event()
            await trio.sleep(self._relocations.pause(clock.now()))
            self._relocations.plan(clock.now())
            await self.replan()

    def _want_plan(self) -> None:
        self._plan_wanted.set()

    def _endpoints(self, node: Node) -> Endpoints:
        """Return every known underlay address of *node*'s peers, with the name of the peer."""
        known = set(self._engine.roster.endpoints(node))
        for peer in node.others:
            if peer.endpoint is not None:
                known.update((peer.name, sockaddr) for sockaddr in literal(peer.endpoint))
        return known

    def _is_affected_by(self, name: str, endpoint: Sockaddr) -> bool:
        return self.host.is_affected_by(name, endpoint)

    # Other programs

    async def watch_network(self) -> None:
        """When addresses or routes of the host change, choose source addresses again and restore what was removed."""
        while True:
            if await changes.gather(self.host.watch, self._mend):
                await self._mend()
                await self._supervisor.tell(RenewSources(self.host.watch.take_move()))
                log.debug("network of the host changed")
                await self.replan()

    async def _mend(self) -> None:
        """Restore what another program changed.  Raises HostError if the interface itself is gone."""
        async with self.changing:
            try:
                other = self.host.check_device()
            except RemovedError:
                if not self._node().is_bare:
                    raise
                log.info("stopping cause=interface_removed")
                raise StoppedError from None  # wg-quick ends the node in this way
            if other is not None:
                log.warning(
                    "interface renamed by another program, name restored interface=%s was=%s",
                    self.host.interface,
                    other,
                )
            try:
                routes = None
                if self.host.may_lack_routes():
                    routes = await trio.to_thread.run_sync(self.host.read_routes)
                fields = self.host.mend(routes)
                if (
                    fields and other is None
                ):  # restoring the name made the interface lose these, not another program
                    self._engine.journal.restored(self.host.interface, fields, clock.now())
            except HostError as error:
                log.error("could not restore routes or addresses that another program changed: %s", error)  # noqa: TRY400  it says enough

    # Container tools

    async def serve_docker(self, task_status: trio.TaskStatus[None]) -> None:
        """Answer Docker, if the options say so; it counts as started when Docker can find it.  Raises HostError."""
        if not self._options.docker:
            task_status.started()
            return
        from overlay.provisioning import docker_driver  # noqa: PLC0415  it loads an HTTP library, and most nodes have no Docker

        await docker_driver.serve(
            self.host.interface, self._node, self.containers, self.filtering, task_status
        )

    # Findings

    def _look_again(self) -> None:
        """Examine the host after a change, write the files for container tools, and set sysctls if --fix-sysctl allows
        it.
        """
        try:
            self._subnet_files.write(self._node(), self.host.mtu)
        except HostError as error:
            log.error("container tools do not get this host's subnet: %s", error)  # noqa: TRY400  it says enough
        if self._options.fix_sysctl:
            try:
                self.host.fix_settings(self._node())
            except HostError as error:
                log.error("settings of the host could not be fixed: %s", error)  # noqa: TRY400  it says enough
        self.notes.look()
        self.notes.want()
        self.containers.want()

    def _look_at_host(self, reading: Reading | None) -> list[Finding]:
        """Return findings about the host: what blocks traffic, and who else can read or write the node's files."""
        firewall, files = (reading.firewall, reading.files) if reading is not None else (None, ())
        node, found = self._node(), list[Finding]()
        if (keyless := unkeyed.describe(node, self._options)) is not None:
            found.append(keyless)
        found += [*self.filtering.findings, *self.host.findings(node, firewall), *files]
        return found if self._engine.sessions.is_clock_plausible() else [*found, UNSET_CLOCK]

    def _read_host(self) -> Reading:
        """Return the facts that take long to read.  Called in a worker thread."""
        files = config.describe_files(self._options, self._node())
        return Reading(self.host.read_firewall(), tuple(files))
