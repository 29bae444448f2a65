"""The control plane: a node while it runs.  Lifecycle has its start and its end.

Agent has one method for each event (a signal, a deadline, a report from the forwarder, a resolved name, a new peers
file, a request on the control socket).  Decisions are made without I/O, in Engine and config.  Supervisor keeps the
forwarder running, and Upkeep keeps the host in the state that the node needs.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
from typing import TYPE_CHECKING

import trio

from overlay import amending, answers, config, numbers, questions, ticks
from overlay.alarm import Alarm
from overlay.answers.running import Running
from overlay.balancing.balancing import Balancing
from overlay.disk_thread import DiskThread
from overlay.doors import metrics, uapi
from overlay.ending import StoppedError
from overlay.engine import Engine, LookUp, Relocated, SessionReport
from overlay.errors import ConfigError, HostError
from overlay.hooks.commands import Hooks
from overlay.host import clock
from overlay.host.process import memory, notify
from overlay.host.sockets.reuseport import INDEX_MARK
from overlay.keys import preshared
from overlay.link.messages import Begin, ControlReceived, ServiceReport, SetEndpoint, SetPeer, Silence
from overlay.provisioning.upkeep import Upkeep
from overlay.records.journal import log_change
from overlay.records.measuring import Measuring
from overlay.reload import ASKED, RETRY, Reloads
from overlay.resolver import Resolver, known, resolve_first
from overlay.session.outputs import InstallKeypair
from overlay.supervision import introduction
from overlay.troubles.views import Views
from peers.errors import StoreError
from peers.garbage import growing

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from overlay.config import Node, Options
    from overlay.engine import Effect
    from overlay.host.names import Names
    from overlay.link.messages import Command, Report
    from overlay.provisioning.setup import HostSetup
    from overlay.roster import Remote, RosterChange
    from overlay.session.constants import Timing
    from overlay.supervision.supervisor import Supervisor
    from overlay.uapi.language import DeviceChange
    from overlay.wire.addresses import Sockaddr
    from peers.stores.store import Store

# Ours
MANY_PEERS = 1000  # changed by a reload; from this number on, memory is returned to the kernel

log = logging.getLogger("overlay")


class Agent:
    """One node while it runs."""

    _nursery: trio.Nursery
    _resolver: Resolver

    def __init__(
        self,
        options: Options,
        node: Node,
        store: Store,
        timing: Timing,
        host: HostSetup,
        supervisor: Supervisor,
        names: Names,
    ) -> None:
        self._options, self._node, self._timing = options, node, timing
        self._host, self._supervisor, self._names = host, supervisor, names
        self._engine = Engine(
            node.private_key, timing, entropy=os.urandom, wall_ns=clock.wall_ns, index_mark=INDEX_MARK
        )
        self._engine.is_quiet = node.is_bare
        self._engine.change_key(*node.private_keys)
        self._upkeep = Upkeep(host, options, lambda: self._node, self._engine, supervisor)
        self._balancing = Balancing(node, self._engine.roster, supervisor.tell, host.links)
        self._views = Views(self._engine.roster, lambda: self._node, supervisor.tell)
        self._hooks = Hooks(options.hooks, lambda: {"node": self._node.own.name, "interface": host.interface})
        self._engine.journal.heard = self._balancing.heard = self._hooks.tell
        self._notes: list[str] = []
        self._started = clock.now()
        self._reloads = Reloads(store, options)
        self._reloading = trio.Lock()  # one table is read at a time
        self._reader = DiskThread(str(options.peers))
        self._alarm = Alarm()  # of _tick()
        self._running = Running(
            lambda: self._node,
            host,
            options,
            timing,
            self._started,
            self._engine,
            supervisor,
            store,
            self._reloads,
            self._notes,
            self._upkeep.notes,
            self._balancing,
            self._upkeep.containers,
            self._amend,
            self._views,
        )

    async def set_up(self) -> None:
        """Set the host up for this node.  Raises HostError.

        Before routes lead into the tunnel, it looks up where the peers are, as far as possible.
        """
        self._engine.adopt(self._engine.foresee(self._node, self._take_known))
        if config.holds_nearly_everything(self._node):
            await resolve_first(self._remotes.values(), self._names)
        self._upkeep.set_up()
        if self._node.clear_note is not None:
            log.warning("%s", self._node.clear_note)

    async def run(self, listener: socket.socket, signals: AsyncIterator[int]) -> None:
        """Serve until stopped; the nursery then raises StoppedError."""
        async with trio.open_nursery() as nursery:
            self._nursery, self._resolver = nursery, Resolver(nursery, self._set_endpoint, self._names)
            nursery.start_soon(self._heed, signals)
            async with self._reloading:  # SIGHUP waits until the start is complete
                self._note_all(await self._supervisor.bring_up(nursery, self._introduce()))
            self._host.is_relied_on = True
            nursery.start_soon(
                self._supervisor.keep,
                self._take_report,
                lambda: len(self._remotes),
                self._restart_forwarder,
                self._balancing.awaits,
            )
            nursery.start_soon(self._supervisor.watch)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._balancing.run)
            nursery.start_soon(self._watch_files)
            nursery.start_soon(questions.serve, listener, self._answer, self._answered)
            nursery.start_soon(Measuring(self._running).run)
            nursery.start_soon(self._hooks.run)
            nursery.start_soon(self._upkeep.watch_network)
            nursery.start_soon(self._upkeep.follow_peers)
            nursery.start_soon(self._upkeep.filtering.keep)
            nursery.start_soon(self._upkeep.notes.keep_reading)
            nursery.start_soon(self._upkeep.containers.run)
            nursery.start_soon(metrics.keep, self._running)
            await nursery.start(self._upkeep.serve_docker)
            await nursery.start(uapi.serve, self._running)
            self._upkeep.notes.want()
            self._engine.greet(self._remotes)
            self._wake_in_time()
            for remote in self._remotes.values():
                self._resolver.resolve_soon(remote, clock.now())
            count = len(self._remotes)
            log.info(
                "ready node=%s interface=%s mtu=%d port=%s peers=%d took=%.3f",
                self._node.own.name,
                self._host.interface,
                self._host.mtu,
                self._host.port or "-",
                count,
                clock.now() - self._started,
            )
            self._hooks.tell("up", port=self._host.port, mtu=self._host.mtu, peers=count)
            memory.settle()
            notify.ready(f"{self._node.own.name} on {self._host.interface}, {numbers.count(count, 'peer')}")

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._nursery.start_soon(self._reload_as_asked)
            else:
                self._stop(signal.Signals(number).name)

    def _stop(self, cause: str) -> None:
        log.info("stopping cause=%s", cause)
        notify.stopping()
        raise StoppedError

    async def _tick(self) -> None:
        """Do what is due, then sleep until the next deadline."""
        looked_in = ticks.this_second()
        while True:
            now, second = clock.now(), ticks.this_second()
            while self._engine.next_deadline() <= now:
                await self._carry_out(self._engine.handle_deadline(now))
            if second > looked_in:
                looked_in = second
                self._upkeep.turn(now)
                self._engine.journal.turn(now)
                self._resolver.resolve_due(self._remotes.values(), now)
                self._names.save()
            with trio.move_on_at(looked_in + 1.0):
                await self._alarm.wait(self._engine.next_deadline(), clock.now())

    def _wake_in_time(self) -> None:
        """Wake _tick() early if there is a deadline before its next one."""
        self._alarm.advance(self._engine.next_deadline())

    # The forwarder

    def _introduce(self) -> Iterator[tuple[Command, Sequence[int]]]:
        """Yield the commands that a new forwarder needs, with their descriptors."""
        roster = self._engine.roster
        yield introduction.describe_start(self._node, self._host, self._timing)
        yield introduction.describe_node(self._node, self._host)
        everything = (roster.everything(), roster.places(), self._balancing.everything())
        for command in itertools.chain.from_iterable(everything):
            yield command, ()
        # Last, so that packets that arrived meanwhile are read once their peers are known.
        for name, opened in self._host.sockets.items():
            yield introduction.describe_sockets(name, opened)
        yield Begin(), ()

    async def _restart_forwarder(self) -> None:
        """Start another forwarder in place of one that ended, and start new sessions.  Raises HostError."""
        async with self._upkeep.changing:
            self._host.renew()
            # Handshakes that began without a forwarder were never sent; those that begin now wait for the new one.
            self._engine.start_over()
            self._wake_in_time()
            self._note_all(await self._supervisor.restart(self._nursery, self._introduce()))
        log.info("forwarder restarted pid=%d", self._supervisor.forwarder.pid)

    async def _take_report(self, report: Report | None) -> None:
        if isinstance(report, SessionReport):
            await self._carry_out(self._engine.take(report, clock.now()))
            if isinstance(report, Silence) and not report.is_over:
                await self._balancing.lost(report.peer)
        elif not isinstance(report, ControlReceived | ServiceReport) or not (
            await self._views.take(report) or await self._balancing.take(report)
        ):
            self._engine.refusals.count("link")  # not a report, or one that belongs to the start

    async def _carry_out(self, effects: Iterable[Effect]) -> None:
        """Carry out the effects that the engine returned."""
        for effect in effects:
            match effect:
                case Relocated():
                    self._upkeep.moved(effect.remote)
                case LookUp():
                    self._resolver.resolve_soon(effect.remote, clock.now(), effect.attempt)
                case _:
                    await self._supervisor.tell(effect)
                    if isinstance(effect, InstallKeypair):
                        await self._balancing.met(effect.peer)
        self._wake_in_time()

    # Endpoints

    def _take_known(self, remote: Remote) -> None:
        """Use the addresses of the configured endpoint that are known without a lookup."""
        endpoint = remote.configured
        self._engine.place(remote, known(endpoint, self._names) if endpoint is not None else ())

    async def _set_endpoint(self, remote: Remote, endpoint: Sockaddr, cause: str) -> None:
        """Use an address of *remote* that the resolver found."""
        if not self._engine.resolved(remote, endpoint, cause, clock.now()):
            return
        if self._host.is_affected_by(remote.peer.name, endpoint):
            await self._upkeep.replan()
        await self._carry_out(self._engine.call(remote, endpoint, cause))

    # Reload

    async def _watch_files(self) -> None:
        """Check the peers file, and reload it when it has changed.

        A check waits for a disk, and nobody for the check.  What it has found is left to a reload that is asked for
        meanwhile, which reads the file after it.
        """
        while True:
            await ticks.next_second()
            if self._reloading.locked():
                continue
            asked = self._reloads.asked
            try:
                cause = await self._reader.run(self._reloads.look, clock.now())
            except StoreError as error:
                self._reloads.refused(error, RETRY, clock.now())
            else:
                if cause and self._reloads.asked == asked:
                    async with self._reloading:
                        await self._reload(cause)

    async def _reload_as_asked(self) -> None:
        """Reload, unless a reload that began later has read the same file."""
        number = self._reloads.ask()
        async with self._reloading:
            if not self._reloads.is_done(number):
                await self._reload(ASKED)

    async def _reload(self, cause: str) -> None:
        """Reload the peers file, or log why it is refused: the previous table then stays in force."""
        cause = self._reloads.begin(cause)
        if cause != RETRY:
            notify.reloading()
        try:
            with growing():
                node = await self._reader.run(self._reloads.read, self._node)
                async with self._upkeep.changing:
                    change = await self._change_to(node)
        except (ConfigError, HostError, StoreError) as error:
            self._reloads.refused(error, cause, clock.now())
        else:
            self._reloads.taken(cause, len(self._remotes))
            self._hooks.tell("reload", cause=cause, peers=len(self._remotes))
            remotes = self._remotes.values()
            self._names.keep({each.configured.host for each in remotes if each.configured is not None})
            if cause == ASKED:
                self._resolver.resolve_again(remotes, clock.now())
            if len(change.added) + len(change.removed) >= MANY_PEERS:
                await self._upkeep.compute(memory.give_back)
                memory.settle()
        if cause != RETRY:
            notify.ready()

    async def _amend(self, change: DeviceChange) -> None:
        """Apply a change that `wg` makes.  Raises RefusedError, ConfigError or HostError with nothing changed."""
        async with self._reloading:
            node = await self._upkeep.compute(amending.amend, self._node, change)
            async with self._upkeep.changing:
                await self._change_to(node)
        for found in amending.placed(change, self._engine.roster):
            await trio.lowlevel.checkpoint()
            for remote, endpoint in found:
                await self._set_endpoint(remote, endpoint, "configuration")

    async def _change_to(self, node: Node) -> RosterChange:
        """Change to *node*.  New state is added before old state is removed, so that every packet finds one of them.

        Raises HostError with nothing changed; after the host has adopted the node, nothing can fail.
        """
        endpoints, planned = await self._upkeep.foresee(node)
        prospect = await self._upkeep.compute(self._engine.foresee, node, self._take_known)
        before = dict(self._host.sockets)
        replaced = self._host.adopt(node, endpoints, planned)
        if node.clear_note not in {None, self._node.clear_note}:
            log.warning("%s", node.clear_note)
        identity, change = self._engine.change_key(*node.private_keys), self._engine.adopt(prospect)
        self._node = node
        self._upkeep.adopted()
        log_change(change)
        if names := [remote.peer.name for remote in change.new_preshared_key]:
            log.info("%s", preshared.describe_change(names, self._timing.reject_after_time))
        await self._supervisor.tell(*introduction.describe_node(node, self._host))
        for name in before.keys() | self._host.sockets.keys():
            opened = self._host.sockets.get(name, [])
            if opened is not before.get(name):
                await self._supervisor.tell(*introduction.describe_sockets(name, opened))
        self._host.leave(replaced, clock.now())  # the forwarder has its own descriptors
        ends = {remote.number: remote.endpoint for remote in change.added}
        for command in (*identity, *change.commands):
            await self._supervisor.tell(command)
            if isinstance(command, SetPeer):  # its endpoint before the prefixes that lead to it
                endpoint = ends.get(command.peer)
                if endpoint is not None:
                    await self._supervisor.tell(SetEndpoint(command.peer, endpoint, "configuration"))
        for remote in change.new_endpoint:
            self._take_known(remote)
        await self._balancing.adopt(node)
        await self._carry_out(self._engine.meet(change))
        return change

    # Questions

    async def _answer(self, request: questions.Request, tell_rows: questions.TellRows) -> questions.Answer:
        return await answers.answer(self._running, request, tell_rows)

    def _answered(self, request: questions.Answer, reply: questions.Answer) -> None:
        if request.get("op") == "down" and reply["ok"]:
            self._stop("down")

    # Helpers

    @property
    def _remotes(self) -> Mapping[int, Remote]:
        """Return the other peers of the current table, by number."""
        return self._engine.roster.by_number

    def note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)
            log.warning("%s", note)

    def _note_all(self, notes: Iterable[str]) -> None:
        for each in notes:
            self.note(each)
