"""The control plane: the life of a node, from start to clean stop.

Read run_agent() for the order in which a node comes up and goes down, then Agent: one method for each thing that
may happen (a report of the forwarder, a deadline, a question on the control socket, a new peers file, a change of
the host's network, a signal).  What to do is decided by values without I/O: Sessions, Roster, config.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import signal
import socket
import sys
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import trio

from overlay import config, status
from overlay.config import Node, Options
from overlay.errors import ConfigError, HostError, OverlayError, PacketError
from overlay.forwarder import Forwarder, ForwarderGoneError
from overlay.host import clock, control, netlink, notify, privileges, sockets, sysctl, tun
from overlay.host.privileges import Capability
from overlay.link import (
    AskCounters,
    Confirmed,
    Counters,
    Handled,
    Handshake,
    Moved,
    PeerCounters,
    Ready,
    RenewSources,
    Retired,
    SetEndpoint,
    SetNode,
    Sockets,
    Start,
    Wanted,
)
from overlay.resolver import RESOLVE_INTERVAL, RESOLVE_PAUSE, ResolveError, resolve
from overlay.roster import Remote, Roster
from overlay.session.constants import Timing
from overlay.session.outputs import Completed, GiveUp, InstallKeypair, Retrying, Transmit, Wipe
from overlay.session.sessions import Sessions
from overlay.wire.addresses import format_sockaddr
from peers.errors import StoreError
from peers.peer import format_public_key
from peers.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from overlay.host.netlink import HostPlan, Routing
    from overlay.link import Report
    from overlay.session.outputs import Output
    from overlay.wire.addresses import Sockaddr

# Ours
TICK = 1.0  # seconds; an idle agent wakes that often, to look at the peers file and at what is due
GREETINGS_PER_SECOND = 250  # handshakes with which a start makes itself known; the peers may hold old keys for us
REPORTS_AT_ONCE = 32  # reports taken before other tasks have their turn
COUNTERS_TIMEOUT = 5.0  # seconds for the forwarder's answer
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds before a forwarder that died is started anew
STEADY_TIME = 60.0  # seconds that a forwarder must live for the pause to start over
NETWORK_PAUSE = 0.5  # seconds in which changes of the host's network are gathered
MTU_QUESTIONS = 256  # peers whose route is asked for when the MTU is computed; underlays are alike
REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT = 5.0
KEPT_CAPABILITIES = (
    Capability.NET_ADMIN,  # tun, routes, marks
    Capability.NET_RAW,  # ICMP errors
    Capability.NET_BIND_SERVICE,  # a port below 1024, at a reload
    Capability.SETUID, Capability.SETGID, Capability.SETPCAP, Capability.KILL,  # to start and end a forwarder
)  # fmt: skip

log = logging.getLogger("overlay")


class StoppedError(Exception):
    """The agent was told to stop; carries nothing, ends the nursery."""


def run(options: Options, log_level: str = "info", timing: Timing | None = None) -> None:
    """Run the agent until it is told to stop.  Raises ConfigError or HostError if it cannot start or go on."""
    logging.basicConfig(
        stream=sys.stderr,
        level=log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    try:
        trio.run(run_agent, options, timing or Timing(), strict_exception_groups=True)
    except* StoppedError:
        pass
    except* OverlayError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[OverlayError]) -> OverlayError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError


async def run_agent(options: Options, timing: Timing) -> None:
    """Bring a node up, run it, and take it down so that the host is as it was."""
    tun.check_interface_name(options.interface)
    key, warnings = config.load_private_key(options.key)
    store = FileStore(options.peers)
    node = config.settle(store, key, options)
    if privileges.missing([Capability.NET_ADMIN]):
        raise HostError("overlay up needs the capability CAP_NET_ADMIN to make a tun device: run it as root")
    with contextlib.ExitStack() as stack:
        answering = control.listen(control.control_path(options.interface))
        stack.callback(answering.close)
        # The interpreter of the forwarder starts while the host is being set up.
        forwarder = Forwarder()
        device = tun.open_tun(options.interface)
        stack.callback(device.close)
        routing = netlink.Routing(options.interface, device.index)
        stack.callback(routing.close)
        agent = Agent(options, node, store, device, routing, timing)
        agent.notes += warnings
        stack.callback(agent.close)
        stack.callback(routing.withdraw)
        try:
            agent.set_up_host()
            await agent.run(forwarder, answering.socket)
        finally:
            with trio.CancelScope(shield=True):
                ended = await agent.forwarder.stop() if agent.forwarder is not None else await forwarder.stop()
                log.debug("forwarder ended %s", ended)
    log.info("stopped interface=%s node=%s", options.interface, node.own.name)


class Agent:
    """One node while it runs."""

    def __init__(
        self,
        options: Options,
        node: Node,
        store: FileStore,
        device: tun.Tun,
        routing: Routing,
        timing: Timing,
    ) -> None:
        self.notes: list[str] = []
        self.forwarder: Forwarder | None = None
        self._options, self._node, self._store = options, node, store
        self._device, self._routing, self._timing = device, routing, timing
        self._sessions = Sessions(node.private_key, entropy=os.urandom, wall_ns=clock.wall_ns, constants=timing)
        self._roster = Roster()
        self._underlay: list[sockets.UdpSocket] = []
        self._icmp: socket.socket | None = None
        self._icmp_address: IPv4Address | None = None
        self._plan: HostPlan | None = None
        self._watch = routing.watch()
        self._started = clock.now()
        self._reload_error: str | None = None
        self._reloading = trio.Lock()
        self._wake = trio.Event()
        self._resolving: set[int] = set()
        self._serial = 0
        self._answers: dict[int, tuple[trio.Event, dict[int, PeerCounters], dict[str, int]]] = {}
        self._refused: dict[str, int] = {}

    # The host

    def set_up_host(self) -> None:
        """Make this node's addresses, routes and sockets.  Raises HostError; what was done is undone by the caller."""
        node = self._node
        for remote in self._roster.change_to(node).added:
            self._add_session(remote)
        left = self._routing.read_back()
        if left:
            log.info("took over %d routes and rules that a killed agent left interface=%s", left, self._device.name)
        for remote in self._roster.by_number.values():
            self._take_literal(remote)
        self._apply_plan(node)
        sysctl.loosen_rp_filter(self._device.name)
        self._underlay = self._open_sockets(node)
        self._icmp, self._icmp_address = self._open_icmp(node)
        self._note_host()
        privileges.keep_only(KEPT_CAPABILITIES)
        for note in self.notes:
            log.warning("%s", note)

    def close(self) -> None:
        """Close what this object opened."""
        self._watch.close()
        for udp in self._underlay:
            udp.close()
        if self._icmp is not None:
            self._icmp.close()

    def _open_sockets(self, node: Node) -> list[sockets.UdpSocket]:
        port = node.table.listen_port(node.own)
        return sockets.open_underlay(node.own.listen, port, self._mark, self._underlay)

    def _open_icmp(self, node: Node) -> tuple[socket.socket | None, IPv4Address | None]:
        for address in node.own.addresses:
            if isinstance(address, IPv4Address):
                return sockets.open_icmp(address, self._mark), address
        return None, None

    @property
    def _mark(self) -> int | None:
        return self._plan.fwmark if self._plan is not None else None

    def _apply_plan(self, node: Node) -> None:
        """Bring addresses, MTU and routes to what *node* asks for, given the endpoints known now."""
        mtu = node.table.network.mtu or config.plan_mtu(node, self._underlay_mtus())
        plan = config.plan_host(node, mtu, self._roster.endpoints())
        if plan != self._plan:
            before = self._mark
            self._routing.apply(plan)
            self._plan = plan
            if plan.fwmark != before:
                for udp in self._underlay:
                    sockets.set_mark(udp.socket, plan.fwmark or 0)

    def _underlay_mtus(self) -> list[int | None]:
        endpoints = {sockaddr[0] for _, sockaddr in self._roster.endpoints()}
        found = []
        for host in sorted(endpoints)[:MTU_QUESTIONS]:
            found.append(self._routing.route_mtu(_address(host), self._mark))
        return found

    def _note_host(self) -> None:
        offloads, notes = self._device.offloads, self.notes
        if not (offloads.tcp and offloads.udp):
            missing = "UDP" if offloads.tcp else "TCP and UDP"
            notes.append(f"this kernel gives no {missing} super-packets: throughput is lower")
        if not all(udp.can_segment and udp.can_coalesce for udp in self._underlay):
            notes.append("this kernel cannot cut or join UDP datagrams: throughput is lower")
        if self._icmp_address is not None and self._icmp is None:
            notes.append("without CAP_NET_RAW, ICMP errors carry the unreachable address as their source")
        versions: set[int] = {prefix.version for prefix in self._node.own.subnets if prefix.num_addresses > 1}
        for version in (4, 6):
            if version in versions and not sysctl.forwarding_enabled(version):  # type: ignore[arg-type]  # 4 or 6
                key = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
                notes.append(
                    f"this host does not forward IPv{version}: its subnets are not reached; run `sysctl -w {key}=1`"
                )
        if not self._sessions.is_clock_plausible():
            notes.append("the clock shows a time before 2020: peers may refuse this node until it is set")

    # Running

    async def run(self, forwarder: Forwarder, listener: socket.socket) -> None:
        """Serve until told to stop: StoppedError."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._await_signals)
            await self._bring_up(forwarder)
            nursery.start_soon(self._keep_forwarder)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._serve_control, listener)
            nursery.start_soon(self._watch_network)
            nursery.start_soon(self._greet)
            for remote in self._roster.by_number.values():
                self._resolve_soon(remote, 0)
            node, plan = self._node, self._plan
            assert plan is not None
            log.info(
                "ready node=%s interface=%s mtu=%d port=%d peers=%d took=%.3f",
                node.own.name,
                self._device.name,
                plan.mtu,
                self._underlay[0].port,
                len(self._roster.by_number),
                clock.now() - self._started,
            )
            notify.ready(f"{node.own.name} on {self._device.name}, {len(self._roster.by_number)} peers")

    async def _await_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload("SIGHUP")
                else:
                    log.info("stopping cause=%s", signal.Signals(number).name)
                    notify.stopping()
                    raise StoppedError

    async def _tick(self) -> None:
        """Do what is due, and look at the peers file; sleep until the next of them."""
        looked_at = clock.now()
        while True:
            now = clock.now()
            while self._sessions.next_deadline() <= now:
                await self._carry_out(self._sessions.handle_deadline(now))
            if now - looked_at >= TICK:
                looked_at = now
                if self._store.changed():
                    await self._reload("file")
                self._resolve_periodically(now)
            self._wake = trio.Event()
            with trio.move_on_after(min(TICK, max(0.0, self._sessions.next_deadline() - clock.now()))):
                await self._wake.wait()

    async def _greet(self) -> None:
        """Shake hands with every peer that can be reached: they may hold keypairs of our last life."""
        for remote in list(self._roster.by_number.values()):
            if remote.endpoint is not None and not remote.is_confirmed:
                await self._want(remote.number)
                await trio.sleep(1 / GREETINGS_PER_SECOND)

    # The forwarder

    async def _bring_up(self, forwarder: Forwarder) -> None:
        """Tell a new forwarder everything it must know, and wait until it is ready."""
        self.forwarder = forwarder
        plan, node = self._plan, self._node
        assert plan is not None
        offloads = self._device.offloads
        timing = [float(value) for value in dataclasses.astuple(self._timing)]
        can_segment = all(udp.can_segment for udp in self._underlay)
        start = Start(node.private_key.public, plan.mtu, offloads.udp, can_segment, timing)
        try:
            await forwarder.send(start, [self._device.descriptor])
            await self._tell_node(node)
            await self._tell_sockets(self._underlay)
            for command in self._roster.everything():
                await forwarder.send(command)
            for remote in self._roster.by_number.values():
                endpoint = remote.heard_at or remote.endpoint
                if endpoint is not None:
                    await forwarder.send(SetEndpoint(remote.number, endpoint, "configuration"))
            while True:
                report = await forwarder.receive()
                if isinstance(report, Ready):
                    for note in report.notes:
                        self._note_once(f"the forwarder keeps privileges: {note}")
                    return
        except ForwarderGoneError:
            raise HostError(f"the forwarder did not start: {await forwarder.stop()}") from None

    async def _tell_node(self, node: Node) -> None:
        assert self.forwarder is not None
        assert self._plan is not None
        addresses = [address.packed for address in node.own.addresses]
        descriptors = [] if self._icmp is None else [self._icmp.fileno()]
        await self.forwarder.send(SetNode(self._plan.mtu, bool(descriptors), addresses), descriptors)

    async def _tell_sockets(self, underlay: Sequence[sockets.UdpSocket]) -> None:
        assert self.forwarder is not None
        families = [int(udp.family) for udp in underlay]
        await self.forwarder.send(Sockets(families, underlay[0].port), [udp.fileno() for udp in underlay])

    async def _keep_forwarder(self) -> None:
        """Take the forwarder's reports; when it ends, start another and shake hands anew."""
        pause = FIRST_PAUSE
        while True:
            assert self.forwarder is not None
            began = clock.now()
            try:
                await self._take_reports(self.forwarder)
            except ForwarderGoneError:
                ended = await self.forwarder.stop()
            log.error("forwarder ended unexpectedly, starting another: %s", ended)
            pause = FIRST_PAUSE if clock.now() - began > STEADY_TIME else min(pause * 2, LONGEST_PAUSE)
            self._sessions.start_over()
            for remote in self._roster.by_number.values():
                remote.is_confirmed = False
            await trio.sleep(pause)
            async with self._reloading:
                await self._bring_up(Forwarder())
            log.info("forwarder restarted pid=%d", self.forwarder.pid)
            self._nursery.start_soon(self._greet)

    async def _take_reports(self, forwarder: Forwarder) -> None:
        while True:
            report = await forwarder.receive()
            handled = 0
            for _ in range(REPORTS_AT_ONCE):
                if report is not None:
                    handled += isinstance(report, Handshake)
                    await self._take_report(report)
                report = forwarder.receive_now()
                if report is None:
                    break
            else:
                if report is not None:
                    handled += isinstance(report, Handshake)
                    await self._take_report(report)
            if handled:
                await forwarder.send(Handled(handled))
            await trio.lowlevel.checkpoint()

    async def _take_report(self, report: Report) -> None:
        now = clock.now()
        match report:
            case Handshake():
                await self._receive_handshake(report, now)
            case Wanted():
                await self._want(report.peer)
            case Confirmed():
                self._sessions.confirmed(report.local_index)
                remote = self._roster.by_number.get(report.peer)
                if remote is not None:
                    remote.is_confirmed = True
            case Retired():
                self._sessions.retired(report.local_index)
            case Moved():
                await self._peer_moved(report)
            case Counters():
                self._take_counters(report)
            case Ready():
                self._count("link")

    async def _receive_handshake(self, report: Handshake, now: float) -> None:
        try:
            outputs = self._sessions.receive(report.datagram, report.source, now)
        except PacketError as error:
            self._count(error.reason)
            log.debug("handshake refused reason=%s source=%s", error.reason, format_sockaddr(report.source))
            return
        await self._carry_out(outputs)

    async def _want(self, number: int) -> None:
        await self._carry_out(self._sessions.want(number, clock.now()))
        self._wake.set()

    async def _carry_out(self, outputs: Iterable[Output]) -> None:
        """Make happen what a session machine asks for.  A forwarder that is gone is another task's matter."""
        assert self.forwarder is not None
        for output in outputs:
            match output:
                case Transmit() | InstallKeypair() | Wipe():
                    with contextlib.suppress(ForwarderGoneError):
                        await self.forwarder.send(output)
                case GiveUp():
                    log.warning("peer unreachable peer=%s", self._name(output.peer))
                    with contextlib.suppress(ForwarderGoneError):
                        await self.forwarder.send(output)
                case Completed():
                    self._completed(output)
                case Retrying():
                    remote = self._roster.by_number.get(output.peer)
                    if remote is not None:
                        self._resolve_soon(remote, output.attempt)

    def _completed(self, output: Completed) -> None:
        remote = self._roster.by_number.get(output.peer)
        if remote is None:
            return
        remote.endpoint = remote.heard_at = output.endpoint
        remote.is_confirmed = remote.is_confirmed or output.is_initiator
        log.info(
            "handshake completed peer=%s endpoint=%s role=%s took=%.3f",
            remote.peer.name,
            format_sockaddr(output.endpoint),
            "initiator" if output.is_initiator else "responder",
            output.took,
        )

    async def _peer_moved(self, report: Moved) -> None:
        remote = self._roster.by_number.get(report.peer)
        if remote is None:
            return
        remote.endpoint = remote.heard_at = report.endpoint
        log.info("peer moved peer=%s endpoint=%s", remote.peer.name, format_sockaddr(report.endpoint))
        await self._replan()

    # Endpoints

    def _add_session(self, remote: Remote) -> None:
        self._sessions.add_peer(remote.number, remote.peer.public_key, remote.preshared_key)

    def _take_literal(self, remote: Remote) -> None:
        """Use the configured endpoint at once if it is an address."""
        from overlay.resolver import literal

        endpoint = remote.peer.endpoint
        remote.resolved = literal(endpoint) if endpoint is not None else ()
        remote.endpoint = remote.resolved[0] if remote.resolved else None

    def _resolve_soon(self, remote: Remote, attempt: int) -> None:
        """Look the configured endpoint up, in the background, and try the next of its addresses."""
        if remote.peer.endpoint is not None and remote.number not in self._resolving:
            self._resolving.add(remote.number)
            self._nursery.start_soon(self._resolve, remote, attempt)

    def _resolve_periodically(self, now: float) -> None:
        for remote in self._roster.by_number.values():
            endpoint = remote.peer.endpoint
            if endpoint is None or endpoint.address is not None:
                continue
            if now - remote.resolved_at >= (RESOLVE_INTERVAL if remote.resolved else RESOLVE_PAUSE):
                self._resolve_soon(remote, 0)

    async def _resolve(self, remote: Remote, attempt: int) -> None:
        """Resolve, and change the endpoint if there is reason to.

        At attempt 0 that is an answer other than the last.  A handshake that got no answer *attempt* times tries in
        turn where the peer was heard last and every address of its name.
        """
        endpoint = remote.peer.endpoint
        assert endpoint is not None
        now = clock.now()
        try:
            if endpoint.address is not None or now - remote.resolved_at >= RESOLVE_PAUSE or not remote.resolved:
                remote.resolved_at = now
                found = await resolve(endpoint)
            else:
                found = remote.resolved
        except ResolveError as error:
            log.warning("%s peer=%s", error, remote.peer.name)
            return
        finally:
            self._resolving.discard(remote.number)
        if self._roster.by_number.get(remote.number) is not remote or remote.peer.endpoint != endpoint:
            return
        is_new, remote.resolved = found != remote.resolved, found
        candidates = list(dict.fromkeys([*([remote.heard_at] if remote.heard_at else []), *found]))
        if attempt:
            chosen = candidates[attempt % len(candidates)]
        elif is_new and remote.endpoint not in found:
            chosen = found[0]
        else:
            return
        if chosen != remote.endpoint:
            await self._set_endpoint(remote, chosen, "configuration" if endpoint.address is not None else "dns")

    async def _set_endpoint(self, remote: Remote, endpoint: Sockaddr, cause: str) -> None:
        had_none = remote.endpoint is None
        remote.endpoint = endpoint
        log.info("endpoint set peer=%s endpoint=%s cause=%s", remote.peer.name, format_sockaddr(endpoint), cause)
        assert self.forwarder is not None
        with contextlib.suppress(ForwarderGoneError):
            await self.forwarder.send(SetEndpoint(remote.number, endpoint, cause))
        await self._replan()
        if had_none:
            await self._want(remote.number)

    # Reload

    async def _reload(self, cause: str) -> None:
        """Take the peers file as it is now, or say why not: then the last good table stays in force."""
        notify.reloading()
        async with self._reloading:
            try:
                node = await trio.to_thread.run_sync(self._settle_again)
                await self._change_to(node)
            except (ConfigError, HostError, StoreError) as error:
                self._reload_error = str(error)
                log.error("reload refused, the last good table stays in force: %s", error)
            else:
                self._reload_error = None
                log.info("reloaded cause=%s peers=%d", cause, len(self._roster.by_number))
        notify.ready()

    def _settle_again(self) -> Node:
        key, _ = config.load_private_key(self._options.key)
        if key != self._node.private_key:
            raise ConfigError(f"{self._options.key} holds another key now: taking it needs a restart")
        try:
            return config.settle(self._store, key, self._options)
        except ConfigError as error:
            own = self._node.own
            table = getattr(error, "table", None)
            if table is not None and own.name in table.peers:
                raise ConfigError(
                    f"the public_key of this node, peers.{own.name}, changed: taking another key needs a restart"
                ) from None
            raise

    async def _change_to(self, node: Node) -> None:
        """Go over to *node*: what is new before what is old goes, so that no packet finds neither."""
        assert self.forwarder is not None
        before, old_plan = self._node, self._plan
        old_sockets = self._underlay
        if self._binds(node) != self._binds(before):
            self._underlay = self._open_sockets(node)
        change = self._roster.change_to(node)
        for remote in (*change.added, *change.new_endpoint):
            self._take_literal(remote)
        try:
            self._apply_plan(node)
        except HostError:
            self._roster.change_to(before)
            if self._underlay is not old_sockets:
                for udp in self._underlay:
                    udp.close()
                self._underlay = old_sockets
            with contextlib.suppress(HostError):
                assert old_plan is not None
                self._routing.apply(old_plan)
            raise
        self._node = node
        for remote in change.removed:
            self._sessions.remove_peer(remote.number)
        for remote in change.added:
            self._add_session(remote)
        for remote in change.new_preshared_key:
            self._sessions.set_preshared_key(remote.number, remote.preshared_key)
        with contextlib.suppress(ForwarderGoneError):
            await self._tell_change(node, before, change.commands, old_sockets)
            for remote in (*change.added, *change.new_endpoint):
                if remote.endpoint is not None:
                    await self.forwarder.send(SetEndpoint(remote.number, remote.endpoint, "configuration"))
        for remote in (*change.added, *change.new_endpoint):
            remote.heard_at = None
            if remote.endpoint is None:
                self._resolve_soon(remote, 0)
            else:
                await self._want(remote.number)
        for remote in change.new_preshared_key:
            await self._want(remote.number)
        self._log_change(change)

    async def _tell_change(
        self, node: Node, before: Node, commands: Iterable[Any], old_sockets: list[sockets.UdpSocket]
    ) -> None:
        assert self.forwarder is not None
        if node.own.addresses != before.own.addresses:
            if self._icmp is not None:
                self._icmp.close()
            self._icmp, self._icmp_address = self._open_icmp(node)
        await self._tell_node(node)
        for command in commands:
            await self.forwarder.send(command)
        if self._underlay is not old_sockets:
            await self._tell_sockets(self._underlay)
            for udp in old_sockets:
                udp.close()  # the forwarder holds its own descriptor, and reads it for a while

    @staticmethod
    def _binds(node: Node) -> tuple[object, ...]:
        return node.table.listen_port(node.own), node.own.listen

    def _log_change(self, change: Any) -> None:
        for remote in change.added:
            log.info("peer added peer=%s", remote.peer.name)
        for remote in change.removed:
            log.info("peer removed peer=%s", remote.peer.name)

    # The host's network

    async def _watch_network(self) -> None:
        """When addresses or routes change, choose source addresses anew and mend what was taken from us."""
        while True:
            await trio.lowlevel.wait_readable(self._watch.fileno())
            await trio.sleep(NETWORK_PAUSE)
            if not self._watch.drain():
                continue
            try:
                socket.if_nametoindex(self._device.name)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    raise HostError(f"{self._device.name} was removed by somebody else: start the agent again") from error
                raise
            assert self.forwarder is not None
            with contextlib.suppress(ForwarderGoneError):
                await self.forwarder.send(RenewSources())
            await self._replan(mend=True)

    async def _replan(self, *, mend: bool = False) -> None:
        """Compute routes and MTU again from what is known now."""
        async with self._reloading:
            mtu = self._plan.mtu if self._plan is not None else 0
            try:
                if mend:
                    self._routing.read_back()
                    self._plan, plan = None, self._plan
                    try:
                        self._apply_plan(self._node)
                    finally:
                        self._plan = self._plan or plan
                else:
                    self._apply_plan(self._node)
            except HostError as error:
                log.error("routes could not be brought up to date: %s", error)
                return
            assert self._plan is not None
            if self._plan.mtu != mtu:
                log.info("mtu changed mtu=%d was=%d", self._plan.mtu, mtu)
                with contextlib.suppress(ForwarderGoneError):
                    await self._tell_node(self._node)

    # Questions

    async def _serve_control(self, listener: socket.socket) -> None:
        trio_listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
        await trio.serve_listeners(self._answer, [trio_listener])

    async def _answer(self, stream: trio.SocketStream) -> None:
        line = bytearray()
        with trio.move_on_after(REQUEST_TIMEOUT):
            async for chunk in _chunks(stream):
                line += chunk
                if b"\n" in chunk or len(line) > REQUEST_BYTES:
                    break
        try:
            request = control.decode(bytes(line))
        except ValueError:
            reply: dict[str, Any] = {"ok": False, "kind": "failed", "error": "the request is not one line of JSON"}
            request = {}
        else:
            reply = await self._reply(request)
        with trio.move_on_after(REQUEST_TIMEOUT), contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(control.encode(reply))
            await stream.aclose()
        if request.get("op") == "down" and reply["ok"]:
            log.info("stopping cause=down")
            notify.stopping()
            raise StoppedError

    async def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("op"):
            case "status":
                return {"ok": True, "status": await self._status()}
            case "down":
                return {"ok": True, "pid": os.getpid()}
            case "peer":
                return self._peer(request.get("name"))
            case _:
                return {"ok": False, "kind": "failed", "error": "this agent does not know that request"}

    def _peer(self, name: object) -> dict[str, Any]:
        remote = self._roster.by_name.get(name) if isinstance(name, str) else None
        if remote is None:
            if name == self._node.own.name:
                error = f"{name} is this node itself"
            else:
                error = f"there is no peer {name} in {self._options.peers}"
            return {"ok": False, "kind": "unknown_peer", "error": error, "known": list(self._roster.by_name)}
        now = clock.now()
        row = status.peer_status(
            remote, self._sessions.status(remote.number), None, now, self._timing.reject_after_time
        )
        row["own_addresses"] = [str(address) for address in self._node.own.addresses]
        return {"ok": True, "peer": row}

    async def _status(self) -> dict[str, Any]:
        counters, drops = await self._ask_counters()
        now, node, plan = clock.now(), self._node, self._plan
        assert plan is not None
        assert self.forwarder is not None
        for reason, count in self._refused.items():
            drops[reason] = drops.get(reason, 0) + count
        rows = [
            status.peer_status(
                remote,
                self._sessions.status(remote.number),
                counters.get(remote.number),
                now,
                self._timing.reject_after_time,
            )
            for peer in node.others
            if (remote := self._roster.by_name.get(peer.name)) is not None
        ]
        return {
            "node": node.own.name,
            "interface": self._device.name,
            "public_key": format_public_key(node.own.public_key),
            "mtu": plan.mtu,
            "port": self._underlay[0].port,
            "addresses": [str(address) for address in node.own.addresses],
            "prefixes": [str(prefix) for prefix in node.table.network.prefixes],
            "pid": os.getpid(),
            "forwarder_pid": self.forwarder.pid,
            "uptime": status.age(self._started, now),
            "peers_file": str(self._options.peers),
            "reload_error": self._reload_error,
            "notes": self.notes,
            "drops": drops,
            "peers": rows,
        }

    async def _ask_counters(self) -> tuple[dict[int, PeerCounters], dict[str, int]]:
        """Return the forwarder's counters; what it told in time if it is busy or gone."""
        assert self.forwarder is not None
        self._serial += 1
        serial = self._serial
        told, peers, drops = trio.Event(), dict[int, PeerCounters](), dict[str, int]()
        self._answers[serial] = told, peers, drops
        try:
            with trio.move_on_after(COUNTERS_TIMEOUT), contextlib.suppress(ForwarderGoneError):
                await self.forwarder.send(AskCounters(serial))
                await told.wait()
        finally:
            del self._answers[serial]
        return peers, drops

    def _take_counters(self, report: Counters) -> None:
        answer = self._answers.get(report.serial)
        if answer is None:
            return
        told, peers, drops = answer
        peers.update((row.peer, row) for row in report.peers)
        drops.update(report.drops)
        if report.is_last:
            told.set()

    # Helpers

    def _count(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
            log.warning("%s", note)

    def _name(self, number: int) -> str:
        remote = self._roster.by_number.get(number)
        return remote.peer.name if remote is not None else f"#{number}"


async def _chunks(stream: trio.SocketStream) -> AsyncIterator[bytes]:
    with contextlib.suppress(trio.BrokenResourceError):
        async for chunk in stream:
            yield bytes(chunk)


def _address(host: str) -> Any:
    from ipaddress import ip_address

    return ip_address(host.partition("%")[0])
