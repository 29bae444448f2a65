"""Directors tell each other about flows, so that the next one continues them: connection synchronization, as in ip_vs.

Only proven flows are sent (not a flood of spoofed SYNs): within a fraction of a second, at each change of their state,
and again before the others forget them if packets still came here.  A director that starts again asks the others for
all that they have.  All of this is best effort: what is lost on the way is sent again at the next change or refresh.

A scheduler that hashes finds the server of a flow by itself, at every director.  There, only flows that are astray are
sent: those of a server that has been drained, those that the table leads elsewhere since a weight changed or a server
went or came, and those that another director would lead elsewhere because it sees the servers otherwise.  They are
looked for among all flows when the scheduler has got other servers; later ones are found when they are proven.  A
director that has just begun may know that a server is drained before it knows of its flows: packets of flows that it
does not know wait, as a rule for a fraction of a second, until the others have told theirs.

A flow that this director has seen itself keeps its server whatever is learnt, and no message makes a flow end.  A
director that only learnt of a flow does not send it on: it has seen no packet of it.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.forwarding.services.server import Takes
from overlay.services.schedulers import Hashed
from overlay.services.states import CLOSING, UNPROVEN, State
from overlay.wire import control
from overlay.wire.flow_key import flow_key, parse_flow_key
from overlay.wire.ip import PROTOCOL_TCP
from overlay.wire.service_control import FlowsTold, SyncedFlow, most_flows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.services.flows import FlowTable
    from overlay.forwarding.services.service import Service
    from overlay.forwarding.workqueue import Workqueue

# Ours
TICK = 0.15  # seconds from one telling to the next
MESSAGES = 60  # in one tick to each director: 400 a second, where it takes 1500 of one peer, pings and all
REFRESH = 300.0  # seconds at most until flows with packets are sent again; ip_vs has 0 to 300 s
OFTEN = 5.0  # seconds at least, where flows are forgotten early
ASKING, ASKING_LATER = 0.5, 5.0  # seconds between two questions for all flows: ten times, and after that
EAGER = 10
PATIENCE = 3.0  # seconds without an answer, until unknown flows are not waited for any more
LONGEST_PATIENCE = 30.0  # as long as answers come
ANSWER_INTERVAL = 1.0  # seconds from the end of an answer with all flows to the next to the same director
WAITING = 1024  # messages at most that wait to be learnt from
LOOKING = 2.0  # seconds at least from one look for flows that are astray to the next
PASSED_OVER = 32  # flows that are not told, in one step: 2 microseconds each
CLIENT = 0  # in the place of a protocol: a client that keeps its server
_ENDED = frozenset({State.TIME_WAIT, State.CLOSE})
_TCP, _OTHER = frozenset({State.ESTABLISHED, *CLOSING}), frozenset({State.UDP})


@dataclass(slots=True)
class _Ask:
    """A director that has not told all its flows yet."""

    due: float
    count: int = 0


@dataclass(slots=True)
class _Shared:
    """A service, and the numbers of the peers that are its *others*, the directors other than this node."""

    number: int
    service: Service
    others: frozenset[int]
    addresses: frozenset[bytes]
    protocols: frozenset[int]
    ports: tuple[tuple[int, int], ...]
    tells_all: bool  # its flows, not only those that are astray
    began: float
    refresh: float
    changes: int  # of the service, up to which flows that are astray were looked for
    revivals: int = 0  # of servers, up to which the others were asked again
    looked: float = -math.inf
    asked_again: float = -math.inf
    asks: dict[int, _Ask] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)  # until when each is not told everything again
    now: float = 0.0  # of the tick under way

    @property
    def interval(self) -> float:
        """The seconds after which flows with packets are sent again: twice before the others forget them."""
        settings = self.service.settings
        idle = [settings.tcp if protocol == PROTOCOL_TCP else settings.udp for protocol in self.protocols]
        if settings.persistence:
            idle.append(settings.persistence)
        return max(OFTEN, min(REFRESH, *(each / 2 for each in idle)))

    @property
    def name(self) -> int:
        """The service's name on the wire."""
        return zlib.crc32(self.service.name.encode())

    def has(self, row: SyncedFlow) -> bool:
        """Return whether *row* can be a flow of the service, or a client of it."""
        if row.protocol == CLIENT:
            return True
        return (
            row.address in self.addresses
            and row.protocol in self.protocols
            and (not self.ports or any(first <= row.port <= last for first, last in self.ports))
            and row.state in (_TCP if row.protocol == PROTOCOL_TCP else _OTHER)
        )

    def row(
        self, table: FlowTable, key: bytes, *, is_client: bool = False, is_change: bool = False
    ) -> SyncedFlow | None:
        """Return the row to send for a flow or, from the table of templates, a client;
        None if there is nothing to send.

        A change of its state, *is_change*, is sent for each flow that another director knows.
        """
        found = table.find(key)
        if found is None:
            return None
        shard, row = found
        server, state = self.service.servers[shard.server[row]], shard.state[row]
        if server.peer is None or state in UNPROVEN:
            return None
        if not (
            is_client or self.tells_all or (is_change and shard.told[row])
        ) and not self.service.is_astray(key, server):
            return None
        if not shard.is_learnt(row):
            shard.note_told(row)
        idle = min(0xFFFF, max(0, int(self.now - shard.seen[row])))
        if is_client:
            return SyncedFlow(CLIENT, state, idle, server.identity, key, 0, bytes(len(key)), 0)
        protocol, client, client_port, address, port = parse_flow_key(key)
        return SyncedFlow(protocol, state, idle, server.identity, client, client_port, address, port)


@dataclass(slots=True)
class _Walk:
    """Flows of a service on their way to *targets*: all, or those with packets not sent yet."""

    shared: _Shared
    targets: frozenset[int]
    is_all: bool
    rows: Iterator[SyncedFlow | None] = field(init=False)  # None for each that there is nothing to tell of
    is_over: bool = False

    def __post_init__(self) -> None:
        self.rows = self._rows()

    def _rows(self) -> Iterator[SyncedFlow | None]:
        service = self.shared.service
        for table in (service.flows, service.templates):
            if table is not None:
                for key in table.open_keys(is_all=self.is_all):
                    yield self.shared.row(table, key, is_client=table is not service.flows)
        self.is_over = True


class Sync:
    """The services that have other directors.  *send* sends a payload to a peer under a keypair."""

    def __init__(
        self,
        peers: dict[int, LivePeer],
        jobs: Workqueue,
        send: Callable[[LivePeer, Keypair[LivePeer], bytes], object],
    ) -> None:
        self._peers, self._jobs, self._send = peers, jobs, send
        self._shared: dict[int, _Shared] = {}  # by the number of the service
        self._by_name: dict[int, _Shared] = {}
        self._walks: deque[_Walk] = deque()
        self._due = 0.0
        self._waiting = 0  # messages that have come and not been learnt from

    def share(
        self,
        number: int,
        service: Service,
        others: Iterable[int],
        addresses: Iterable[bytes],
        protocols: Iterable[int],
        ports: Iterable[tuple[int, int]],
        now: float,
    ) -> None:
        """Share the service of a number from now on; its directors other than this node are the peers *others*."""
        before = self._shared.get(number)
        self.forget(number)
        others = frozenset(others)
        if not others:
            return
        shared = _Shared(
            number, service, others, frozenset(addresses), frozenset(protocols), tuple(ports),
            service.selection.hashed is Hashed.NOTHING, now, now, service.changes
        )  # fmt: skip
        shared.refresh = now + shared.interval
        if before is not None and before.tells_all >= shared.tells_all:
            shared.asks = {other: _Ask(now) for other in others - before.others}
            shared.asks |= {other: ask for other, ask in before.asks.items() if other in others}
            shared.began, shared.answered = before.began, before.answered
            shared.refresh = min(before.refresh, shared.refresh)
            shared.changes, shared.looked = before.changes, before.looked
            shared.revivals, shared.asked_again = before.revivals, before.asked_again
        else:
            shared.asks = {other: _Ask(now) for other in others}
            service.learns_until = now + PATIENCE
        self._shared[number] = shared
        self._by_name[shared.name] = shared

    def forget(self, number: int) -> None:
        """Remove the service of that number."""
        shared = self._shared.pop(number, None)
        if shared is not None:
            self._by_name.pop(shared.name, None)
            self._walks = deque(walk for walk in self._walks if walk.shared is not shared)

    # Telling

    def turn(self, now: float) -> None:
        """Send what is due, some at a time; it is called often."""
        if now < self._due or not self._shared:
            return
        self._due = now + TICK
        for shared in self._shared.values():
            if shared.refresh <= now:
                shared.refresh = now + shared.interval
                self._walk(_Walk(shared, shared.others, is_all=False))
            self._look(shared, now)
            self._ask_again(shared, now)
            self._ask(shared, now)
        if not self._jobs.has("flows told"):
            self._jobs.add("flows told", self._messages(now), self._tell)

    def _ask(self, shared: _Shared, now: float) -> None:
        for number, ask in shared.asks.items():
            if ask.due <= now:
                if self._usable(number, now) is not None:
                    ask.count += 1
                ask.due = now + (ASKING if ask.count < EAGER else ASKING_LATER)
                self._tell((frozenset([number]), FlowsTold(shared.name, wants_all=True)), now)

    def _ask_again(self, shared: _Shared, now: float) -> None:
        """Ask for all flows once more where a server is back: those told of it meanwhile were not learnt."""
        if shared.service.revivals != shared.revivals and shared.asked_again + ASKING_LATER <= now:
            shared.revivals, shared.asked_again = shared.service.revivals, now
            shared.asks = {other: _Ask(now) for other in shared.others}

    def _look(self, shared: _Shared, now: float) -> None:
        """Look for flows that are astray, if others may be so than before."""
        changes = shared.service.changes
        if shared.tells_all or changes == shared.changes or now < shared.looked + LOOKING:
            return
        if self._walk(_Walk(shared, shared.others, is_all=False)):
            shared.changes, shared.looked = changes, now

    def _walk(self, walk: _Walk) -> bool:
        """Start a walk unless one to the same directors has not finished; return whether it was started."""
        if any(each.shared is walk.shared and each.targets == walk.targets for each in self._walks):
            return False
        self._walks.append(walk)
        return True

    def _messages(self, now: float) -> Iterator[tuple[frozenset[int], FlowsTold | None]]:
        """Yield what is to be told in one tick, and to whom; None for some work that came to nothing."""
        room = MESSAGES
        for shared in list(self._shared.values()):
            waiting, shared.now = shared.service.flows.news, now
            if not waiting:
                continue
            targets = self._reachable(shared.others, now)
            if not targets:
                waiting.clear()  # one that comes back learns by the refresh, and one that restarts asks
                continue
            for told in _packed(shared.name, self._news(shared, waiting), room):
                yield targets, told
                room -= told is not None
        while self._walks and room > 0:
            walk = self._walks[0]
            targets = self._reachable(walk.targets, now)
            for told in _packed(walk.shared.name, walk.rows, room) if targets else ():
                yield targets, told
                room -= told is not None
            if targets and not walk.is_over:
                return
            if self._walks and self._walks[0] is walk:
                self._walks.popleft()
            if walk.is_all and targets:
                for number in targets:
                    walk.shared.answered[number] = now + ANSWER_INTERVAL
                yield targets, FlowsTold(walk.shared.name, is_complete=True)

    @staticmethod
    def _news(shared: _Shared, waiting: deque[bytes]) -> Iterator[SyncedFlow | None]:
        service = shared.service
        flows = service.flows
        done: set[bytes] = set()
        while waiting:
            key = waiting.popleft()
            if key in done:
                continue
            done.add(key)
            found = flows.find(key)
            # What began and ended at once is of no use, except for the server that its client keeps.
            if found is None or (
                service.templates is None
                and not found[0].told[found[1]]
                and found[0].state[found[1]] in _ENDED
            ):
                yield None
            else:
                yield shared.row(flows, key, is_change=True)

    def _tell(self, message: tuple[frozenset[int], FlowsTold | None], now: float) -> None:
        targets, told = message
        if told is None:
            return
        payload = control.build(told)
        for number in targets:
            keypair = self._usable(number, now)
            if keypair is not None:
                self._send(self._peers[number], keypair, payload)

    def _reachable(self, numbers: Iterable[int], now: float) -> frozenset[int]:
        return frozenset(number for number in numbers if self._usable(number, now) is not None)

    def _usable(self, number: int, now: float) -> Keypair[LivePeer] | None:
        """Return the keypair with a peer; that there is one is the matter of the agents,
        which tell each other they live.
        """
        peer = self._peers.get(number)
        return None if peer is None else peer.keypairs.usable(now)

    # Learning

    def take(self, peer: LivePeer, told: FlowsTold, now: float) -> None:
        """Take what *peer* sent; it is ignored unless it is a director of the service."""
        shared = self._by_name.get(told.service)
        if shared is None or peer.number not in shared.others:
            peer.drops.add("control_foreign")
            return
        if told.wants_all and shared.answered.get(peer.number, 0.0) <= now:
            self._walk(_Walk(shared, frozenset([peer.number]), is_all=True))
        if told.is_complete:
            shared.asks.pop(peer.number, None)
            if not shared.asks:
                self._jobs.add("flows learnt", [shared], self._learnt_all)
        elif told.rows:
            if shared.service.learns_until > now:
                shared.service.learns_until = min(now + PATIENCE, shared.began + LONGEST_PATIENCE)
            if self._waiting >= WAITING:
                peer.drops.add("control_rate")
                return
            self._waiting += 1
            self._jobs.add("flows learnt", [(shared, told, now)], self._learn)

    @staticmethod
    def _learnt_all(shared: _Shared, _: float) -> None:
        if not shared.asks:
            shared.service.learns_until = 0.0

    def _learn(self, message: tuple[_Shared, FlowsTold, float], _: float) -> None:
        self._waiting -= 1
        shared, told, came = message
        service = shared.service
        if self._shared.get(shared.number) is None:
            return
        for row in told.rows:
            server = service.by_identity.get(row.server)
            if server is None or server.takes is Takes.NOTHING or not shared.has(row):
                continue
            seen = max(0.0, came - row.idle)
            if row.protocol == CLIENT:
                if service.templates is not None:
                    service.templates.learn(row.client, server.index, seen, is_counted=False)
            else:
                key = flow_key(row.protocol, row.client, row.client_port, row.address, row.port)
                service.learn(key, State(row.state), server, seen)


def _packed(name: int, rows: Iterator[SyncedFlow | None], most: int) -> Iterator[FlowsTold | None]:
    """Yield *rows* in about *most* messages, those of one IP version in each; the others stay where they are.

    None is yielded for PASSED_OVER rows that are None.
    """
    pieces: dict[int, list[SyncedFlow]] = {}
    passed_over = 0
    while most > 0:
        try:
            row = next(rows)
        except StopIteration:
            break
        if row is None:
            passed_over += 1
            if passed_over % PASSED_OVER == 0:
                yield None
            continue
        piece = pieces.setdefault(len(row.client), [])
        piece.append(row)
        if len(piece) == most_flows(len(row.client)):
            del pieces[len(row.client)]
            yield FlowsTold(name, tuple(piece))
            most -= 1
    for piece in pieces.values():
        yield FlowsTold(name, tuple(piece))
