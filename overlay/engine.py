"""The control plane without I/O: how a node reacts to reports from its forwarder, and to time.

Reports and the current time go in; effects come out, to be carried out in order.  The agent does the I/O around it: it
passes commands to the forwarder, resolves names, and asks the host for routes.  The simulator in the tests drives the
same object.  Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from overlay.errors import PacketError
from overlay.greetings import Greetings
from overlay.link.messages import (
    Command,
    Confirmed,
    Handshake,
    Moved,
    Retired,
    SessionWanted,
    SetEndpoint,
    SetIdentity,
    Silence,
)
from overlay.records.journal import Journal
from overlay.roster import Roster
from overlay.session.outputs import (
    Answered,
    Completed,
    Forget,
    GiveUp,
    InstallKeypair,
    Retrying,
    Transmit,
    Wipe,
)
from overlay.session.sessions import Sessions
from overlay.troubles import unresolved
from overlay.troubles.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.config import Node
    from overlay.crypto.keys import PrivateKey
    from overlay.roster import Prospect, Remote, RosterChange
    from overlay.session.constants import Timing
    from overlay.session.outputs import Output
    from overlay.wire.addresses import Sockaddr


@dataclass(frozen=True, slots=True)
class Relocated:
    """Datagrams for *remote* now go to *endpoint*: routes and MTU of this host may have to change."""

    remote: Remote
    endpoint: Sockaddr


@dataclass(frozen=True, slots=True)
class LookUp:
    """The configured endpoint of *remote* must be resolved, after *attempt* unanswered initiations."""

    remote: Remote
    attempt: int = 0


Effect: TypeAlias = Command | Relocated | LookUp
SessionReport: TypeAlias = Handshake | SessionWanted | Confirmed | Retired | Moved | Silence


class Engine:
    """Sessions with the peers of the current table, and the endpoint of each."""

    def __init__(
        self,
        private_key: PrivateKey,
        timing: Timing,
        *,
        entropy: Callable[[int], bytes],
        wall_ns: Callable[[], int],
        index_mark: int | None = None,
    ) -> None:
        self.sessions = Sessions(
            private_key, entropy=entropy, wall_ns=wall_ns, constants=timing, index_mark=index_mark
        )
        self.roster = Roster()
        self.journal = Journal()
        self.refusals = Refusals(self.roster, self.sessions, self.journal)
        self._greetings = Greetings()
        self.is_quiet = (
            False  # as in WireGuard, a peer without keepalive is not called before there is a packet for it
        )

    # The node

    def change_key(self, *private_keys: PrivateKey) -> list[Command]:
        """Become the node of *private_keys*; return what to tell the forwarder in addition to SetNode.

        There are two keys while one is being replaced.  While one of them stays, sessions do; otherwise all are void,
        and every peer is contacted again.  Call this before adopt(): a peer may have the key that was this node's.
        """
        if set(private_keys) & set(self.sessions.private_keys):
            self.sessions.use_keys(*private_keys)
            return []
        self.sessions.change_key(*private_keys)
        self._contact_all()
        return [SetIdentity(private_keys[0].public)]

    # The table

    def foresee(self, node: Node, place: Callable[[Remote], None]) -> Prospect:
        """Return what would change with *node*'s table; nothing changes yet, so another thread may call this.

        *place* is called for each new peer whose location is not known.
        """
        prospect = self.roster.foresee(node)
        for remote in prospect.change.added:
            if not remote.resolved:
                place(remote)
        return prospect

    def adopt(self, prospect: Prospect) -> RosterChange:
        """Make the table of *prospect* the current one; the returned change has the commands for the forwarder."""
        change = self.roster.take(prospect)
        self.refusals.strangers.forget(
            {each.peer.public_key for each in (*change.added, *change.new_public_key) if each.peer.public_key}
        )
        for remote in change.removed:
            self.sessions.remove_peer(remote.number)
            self.journal.forget(remote)
        self.sessions.change_public_keys(
            {
                remote.number: (remote.peer.public_key, remote.preshared_key)
                for remote in change.new_public_key
                if remote.peer.public_key is not None
            }
        )
        for remote in change.added:
            if remote.encapsulation.is_encrypted:
                assert remote.peer.public_key is not None
                self.sessions.add_peer(remote.number, remote.peer.public_key, remote.preshared_key)
        for remote in change.new_preshared_key:
            self.sessions.set_preshared_key(remote.number, remote.preshared_key)
        return change

    def meet(self, change: RosterChange) -> list[Effect]:
        """Contact the peers that are new, or have a new endpoint, public key or preshared key."""
        effects: list[Effect] = [
            SetEndpoint(remote.number, remote.endpoint, "configuration")
            for remote in change.new_endpoint
            if remote.endpoint is not None and remote.configured is not None
        ]
        for remote in (*change.added, *change.new_endpoint):
            if remote.endpoint is None:
                effects.append(LookUp(remote))
            elif remote.configured is not None:
                remote.is_confirmed = False
        for remote in (*change.new_preshared_key, *change.new_public_key):
            remote.is_confirmed = False
        changed = (*change.added, *change.new_endpoint, *change.new_preshared_key, *change.new_public_key)
        self.greet(remote.number for remote in changed)
        return effects

    def greet(self, numbers: Iterable[int]) -> None:
        """Start handshakes with reachable peers, a few at a time: they may still use keypairs from before a restart."""
        if self.is_quiet:
            known = self.roster.by_number
            numbers = [each for each in numbers if each in known and known[each].peer.keepalive]
        self._greetings.add(numbers)

    def start_over(self) -> None:
        """Start new sessions with every peer: the forwarder that held the keypairs has ended."""
        self.sessions.start_over()
        self._contact_all()

    def _contact_all(self) -> None:
        for remote in self.roster.by_number.values():
            remote.is_confirmed = remote.is_silent = False
        self.greet(self.roster.by_number)

    # Where peers are

    def place(self, remote: Remote, resolved: tuple[Sockaddr, ...]) -> None:
        """Set the addresses of the configured endpoint.  A peer without one keeps the endpoint it was last heard
        from.
        """
        remote.resolved = resolved
        if remote.configured is not None:
            remote.heard_at = None
            remote.endpoint = resolved[0] if resolved else None

    def resolved(self, remote: Remote, endpoint: Sockaddr, cause: str, now: float) -> bool:
        """Note that *remote* was resolved to *endpoint*; return False if the peer has been removed.

        The caller calls call() once no route of the host leads to *endpoint* through the tunnel.
        """
        if self.roster.by_number.get(remote.number) is not remote:
            return False
        remote.endpoint = endpoint
        self.journal.endpoint_set(remote, endpoint, cause, now)
        return True

    def call(self, remote: Remote, endpoint: Sockaddr, cause: str) -> list[Effect]:
        """Contact *remote* at *endpoint*, unless it has been heard from another address since."""
        if remote.endpoint != endpoint:
            return []
        if remote.whereabouts.call(endpoint) and not remote.is_confirmed:
            self.greet([remote.number])
        return [SetEndpoint(remote.number, endpoint, cause)]

    # Time

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return min(self.sessions.next_deadline(), self._greetings.next_deadline())

    def handle_deadline(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects = self._carry_out(self.sessions.handle_deadline(now), now)
        number = self._greetings.take(now)
        remote = self.roster.by_number.get(number) if number is not None else None
        if remote is not None and remote.endpoint is not None and not remote.is_confirmed:
            effects += self.want(remote.number, now, is_greeting=True)
        return effects

    # Reports from the forwarder

    def take(self, report: SessionReport, now: float) -> list[Effect]:
        """Handle a report from the forwarder, which is trusted no more than the network."""
        match report:
            case Handshake():
                return self._receive_handshake(report, now)
            case SessionWanted():
                return self.want(report.peer, now, is_idle=report.is_idle)
            case Confirmed():
                return self._carry_out(self.sessions.confirmed(report.local_index, now), now)
            case Retired():
                self.sessions.retired(report.local_index)
            case Moved():
                return self._moved(report, now)
            case Silence():
                self._silence(report, now)
        return []

    def want(
        self, number: int, now: float, *, is_idle: bool = False, is_greeting: bool = False
    ) -> list[Effect]:
        """Start a handshake with a peer unless there is a session with it."""
        return self._carry_out(self.sessions.want(number, now, is_idle=is_idle, is_greeting=is_greeting), now)

    def _receive_handshake(self, report: Handshake, now: float) -> list[Effect]:
        try:
            outputs = self.sessions.receive(report.datagram, report.source, now)
        except PacketError as error:
            self.refusals.take(error, report, self.roster.node, now)
            return []
        return self._carry_out(outputs, now)

    def _silence(self, report: Silence, now: float) -> None:
        remote = self.roster.by_number.get(report.peer)
        if remote is None:
            return
        remote.is_silent = not report.is_over
        if report.is_over:
            self.sessions.heard(report.peer)
            self.journal.found(remote, now)
        else:
            self.journal.lost(remote, "it is silent", now)

    def _moved(self, report: Moved, now: float) -> list[Effect]:
        remote = self.roster.by_number.get(report.peer)
        if remote is None or not remote.encapsulation.is_encrypted:
            return []  # an unencrypted peer is only where the peers file says, whatever a forwarder reports
        remote.whereabouts.moved(report.before, report.endpoint, report.count, now)
        self.journal.moved(remote, report, now)
        return self._heard_at(remote, report.endpoint)

    # Outputs of the sessions

    def _carry_out(self, outputs: Iterable[Output], now: float) -> list[Effect]:
        """Return the effects of *outputs*, in order."""
        effects: list[Effect] = []
        for output in outputs:
            match output:
                case Transmit() | InstallKeypair() | Wipe() | Forget():
                    effects.append(output)
                case GiveUp():
                    remote = self.roster.by_number.get(output.peer)
                    if remote is not None:
                        remote.is_confirmed = False
                        self.journal.lost(remote, unresolved.why_lost(remote), now)
                    effects.append(output)
                case Answered() | Completed():
                    effects += self._met(output, now)
                case Retrying():
                    remote = self.roster.by_number.get(output.peer)
                    if remote is not None:
                        self.journal.retrying(remote, self.sessions.status(output.peer))
                        effects.append(LookUp(remote, output.attempt))
        return effects

    def _met(self, output: Answered | Completed, now: float) -> list[Effect]:
        remote = self.roster.by_number.get(output.peer)
        if remote is None:
            return []
        self.journal.met(remote, output, self.sessions.status(output.peer), now)
        if isinstance(output, Completed):
            remote.is_confirmed, remote.is_silent = True, False
            remote.round_trip, remote.shaken_at = output.round_trip, now
            remote.whereabouts.reached()
            self.refusals.misdirected.forget(output.endpoint[0])
        if (
            isinstance(output, Answered) or output.is_initiator
        ):  # a responder learned the endpoint when it answered
            return self._heard_at(remote, output.endpoint)
        return []

    def _heard_at(self, remote: Remote, endpoint: Sockaddr) -> list[Effect]:
        """Record the endpoint of *remote*, which the forwarder already uses."""
        is_new = endpoint != remote.endpoint
        remote.endpoint = remote.heard_at = endpoint
        return [Relocated(remote, endpoint)] if is_new else []
