"""The parts of a running node, from which answers are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overlay import status
from overlay.host import clock
from overlay.keys import rotation
from overlay.keys.preshared import how_to_compare
from overlay.records import logs
from overlay.records.history import History
from overlay.supervision.counters import SharedAnswer
from overlay.troubles.misplaced import find_misplaced
from overlay.troubles.peers import clock_ahead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from overlay.balancing.balancing import Balancing
    from overlay.config import Node, Options
    from overlay.diagnosis.finding import Finding
    from overlay.diagnosis.notes import HostNotes
    from overlay.engine import Engine
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.link.messages import PeerCounters
    from overlay.provisioning.attaching import Containers
    from overlay.provisioning.setup import HostSetup
    from overlay.reload import Reloads
    from overlay.roster import Remote, Roster
    from overlay.session.constants import Timing
    from overlay.session.peer import HandshakeStatus
    from overlay.supervision.counters import Counted
    from overlay.supervision.supervisor import Supervisor
    from overlay.troubles.refusals import Refusals
    from overlay.troubles.views import Views
    from overlay.uapi.language import DeviceChange
    from peers.service import Service
    from peers.stores.store import Store


@dataclass(frozen=True, slots=True)
class Running:
    """A node while it runs.  *node* returns the configuration in force, which a reload replaces."""

    node: Callable[[], Node]
    host: HostSetup
    options: Options
    timing: Timing
    started: float
    engine: Engine
    supervisor: Supervisor
    store: Store
    reloads: Reloads
    notes: list[str]
    host_notes: HostNotes
    balancing: Balancing
    containers: Containers
    amend: Callable[[DeviceChange], Awaitable[None]]
    """Applies a change that `wg` makes.  Raises RefusedError, ConfigError or HostError; then nothing is changed."""
    views: Views
    history: History = field(default_factory=History)
    counting: SharedAnswer[Counted] = field(default_factory=SharedAnswer)
    log: logs.Log = field(default_factory=logs.current)

    @property
    def roster(self) -> Roster:
        """The other peers of the table in force."""
        return self.engine.roster

    @property
    def services(self) -> Mapping[str, Service]:
        """The services that are balanced, by name.  While a new table takes effect, they are still the old ones,
        like everything that is known about them.
        """
        return self.balancing.node.table.services

    @property
    def refusals(self) -> Refusals:
        """The record of refused handshakes."""
        return self.engine.refusals

    async def count(self, remote: Remote | None = None) -> Counted:
        """Ask the forwarder for the counters of all peers, or of *remote* alone; return those that it reports in time.

        The answer for all of many peers is long, so simultaneous requests for it share one.
        """
        if remote is not None:
            return await self.supervisor.count([remote.number], of_all=False)
        return await self.counting.take(lambda: self.supervisor.count(self.roster.by_number))

    def drops(self, counted: Counted) -> dict[str, int]:
        """Return how many packets that belong to no peer were dropped, by reason: by the forwarder, according to
        *counted*, by the agent and by the kernel.
        """
        drops = dict(counted.drops)
        for reason, count in (*self.refusals.counts.items(), ("tun_overrun", self.host.overruns())):
            if count:
                drops[reason] = drops.get(reason, 0) + count
        return drops

    def rotation_notes(self) -> list[str]:
        """Return a sentence about the key of this node while it is being replaced."""
        found = rotation.standing(self.node(), self.roster, self.engine.sessions)
        return [] if found is None else [found.describe(self.options.key, self.options.interface)]

    def row(
        self,
        remote: Remote,
        counters: PeerCounters | None,
        now: float,
        learnt: Mapping[str, LearntMtu] | None = None,
    ) -> dict[str, Any]:
        """Return the row of *remote* in the status."""
        handshake, patience, compare = self._shaken(remote, now)
        row = status.peer_status(remote, handshake, counters, now, patience, learnt, compare)
        row["notes"] += map(str, self._of_clock(remote, now))
        return row

    def findings(
        self,
        remote: Remote,
        counters: PeerCounters | None,
        now: float,
        learnt: Mapping[str, LearntMtu] | None = None,
    ) -> list[Finding]:
        """Return what is wrong with *remote*, as findings; the status has them as notes."""
        handshake, patience, compare = self._shaken(remote, now)
        found = status.peer_findings(remote, handshake, counters, now, patience, learnt, compare)
        return [*found, *self._of_clock(remote, now)]

    def misplaced(self, remote: Remote | None = None) -> list[Finding]:
        """Return the findings on peers that are heard from the endpoint of another, or the one on *remote*."""
        now, patience, sessions = clock.now(), self.timing.reject_after_time, self.engine.sessions

        def is_met(remote: Remote) -> bool:
            met = sessions.status(remote.number).completed_at
            return met is not None and now - met < patience

        found = find_misplaced(self.roster.by_number.values(), is_met)
        if remote is not None:
            return [found[remote.peer.name]] if remote.peer.name in found else []
        return list(dict.fromkeys(found.values()))

    def _of_clock(self, remote: Remote, now: float) -> list[Finding]:
        """Return the finding on the clock of *remote*, if it is ahead."""
        if not remote.encapsulation.is_encrypted:
            return []
        found = clock_ahead(remote.peer.name, self.engine.sessions.ahead(remote.number, now))
        return [] if found is None else [found]

    def _shaken(self, remote: Remote, now: float) -> tuple[HandshakeStatus | None, float, str]:
        """Return the state of handshakes with *remote*, for how long that counts, and how preshared keys are
        compared.
        """
        handshake = self.engine.sessions.status(remote.number) if remote.encapsulation.is_encrypted else None
        patience, compare = self.timing.reject_after_time, ""
        if handshake is not None and handshake.is_doubted(now, patience):
            compare = how_to_compare(self.node().own, remote.peer, self.options.peers)
        return handshake, patience, compare
