"""A virtual service as the forwarder has it: its servers, its flows, and which server a new flow gets."""

from __future__ import annotations

import enum
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overlay.forwarding import state
from overlay.forwarding.ratelimit import Bucket
from overlay.forwarding.services.flows import Flows
from overlay.forwarding.services.losing import give_to
from overlay.forwarding.services.persistence import Templates, network_of
from overlay.forwarding.services.shortcuts import Shortcuts
from overlay.forwarding.services.views import View
from overlay.reasons import Drops
from overlay.services.schedulers import SCHEDULERS, Hashed, Loads, Real
from overlay.services.states import FIN_TIMEOUT, TCP_TIMEOUT, UDP_TIMEOUT, UNPROVEN, State, timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.forwarding.peer import Peer
    from overlay.services.schedulers import Scheduler

# Ours
NEW_FLOWS = 20_000  # per second and service, twice as many at once
FLOWS = 1_000_000  # of a service whose scheduler needs to know them
CACHE = 65_536  # of one whose scheduler is a function of the flow; more are only forgotten earlier
_NO_LOADS = Loads()  # no server has too many flows


class Takes(enum.IntEnum):
    """What a server takes."""

    NEW = 0
    KEPT = 1  # packets of the flows that it has: drained
    NOTHING = 2  # down or disabled; packets of health checks reach it


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server of a service, as the agent says.

    *number* is stable in the service, *key* the identity in schedulers.  *weight* is the effective one.  A *dscp* above
    0 is written into all packets to it, so that its peer tells its servers apart.  *apart* is what it takes by an IP
    version, where that is less.
    """

    number: int
    key: str
    peer: Peer | None  # None for one that is gone
    weight: int = 1
    takes: Takes = Takes.NEW
    dscp: int = 0
    upper: int = 0
    lower: int = 0
    apart: tuple[tuple[int, Takes], ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a service in the peers file, without its servers; times in seconds."""

    scheduler: str = "maglev"
    persistence: float = 0.0  # 0 is none
    prefix4: int = 32
    prefix6: int = 128
    one_packet: bool = False
    tcp: float = TCP_TIMEOUT
    fin: float = FIN_TIMEOUT
    udp: float = UDP_TIMEOUT
    new_flows: int = NEW_FLOWS  # per second; 0 means no limit
    flows: int = FLOWS
    cache: int = CACHE


class Server(state.Server):
    """A server, and what went to it.

    Flows of the table refer to it by *index*.  *peer* is None once it has lost its flows: those that are still in the
    table end with their next packet.  What goes to it by *uncounted* is not counted here: health checks.
    """

    __slots__ = (
        "apart", "identity", "index", "key", "lower", "number", "peer", "takes", "uncounted", "upper", "weight",
    )  # fmt: skip

    def __init__(self, index: int, row: ServerRow) -> None:
        self.index = index
        self.packets = self.bytes = self.connections = 0
        self.uncounted = state.Server()
        self.uncounted.packets = self.uncounted.bytes = 0
        self.update(row)

    def update(self, row: ServerRow) -> None:
        """Take over the values of *row*, and keep the flows."""
        self.number, self.key, self.weight, self.takes = row.number, row.key, row.weight, row.takes
        self.identity = zlib.crc32(row.key.encode())  # the same at every director
        self.dscp, self.upper, self.lower = row.dscp, row.upper, row.lower
        self.apart = dict(row.apart)
        self.peer: Peer | None = row.peer
        self._goes_to = self.uncounted._goes_to = None if row.peer is None else row.peer.state
        self.uncounted.dscp = row.dscp

    def lose(self) -> None:
        """Take nothing any more."""
        self.peer, self.takes = None, Takes.NOTHING
        self._goes_to = self.uncounted._goes_to = None

    @property
    def takes_new(self) -> bool:
        """Whether new flows may go to it."""
        return self.takes is Takes.NEW and self.weight > 0

    def takes_new_by(self, version: int) -> bool:
        """Whether new flows of an IP version may go to it."""
        return self.takes_new and self.apart.get(version, Takes.NEW) is Takes.NEW

    def real(self, version: int = 0) -> Real:
        """Return what schedulers see of it, for both IP versions or for one alone."""
        is_there = self.takes is Takes.NEW and self.apart.get(version, Takes.NEW) is Takes.NEW
        weight = self.weight if is_there else 0
        return Real(self.key, weight, self.index, self.upper, self.lower)


class Service:
    """One service with all its addresses and ports."""

    def __init__(self, name: str, settings: Settings, shortcuts: Shortcuts | None = None) -> None:
        self.name = name
        self._shortcuts = shortcuts or Shortcuts()
        self.drops = Drops()
        self.servers: list[Server] = []  # by index; some have lost their flows
        self._free: list[int] = []  # places of servers that have lost their flows and have none left
        self.by_number: dict[int, Server] = {}  # those of the peers file
        self.by_identity: dict[int, Server] = {}  # and the sorry server; none that share one
        self.past = (0, 0, 0)  # connections, packets and bytes of servers that are gone
        self._rows: tuple[ServerRow, ...] = ()
        self.sorry: Server | None = None
        self._is_sorry = False
        self._lost: list[tuple[int, int]] = []  # indices of servers, and IP versions whose flows they lose
        self._gone: Server | None = None  # whose flows are those that were lost so
        self._limited: list[Real] = []  # with thresholds
        self._elsewhere: tuple[tuple[int, Sequence[int]], ...] = ()
        self._views: list[View] = []  # how other directors choose that see the servers otherwise
        self.revivals = 0  # how often a server was given flows again that had been given none
        self.is_preparing = False  # an iterator of prepare() is in use
        self.changes = 0  # how often the scheduler has got other servers, and was ready for them
        self.is_draining = False  # a server is drained: a hash may lead flows elsewhere than when they began
        self.learns_until = 0.0  # what is not known may be a flow that another director will tell of
        self.templates: Templates | None = None
        self.settings = settings
        self.flows = Flows(
            settings.flows,
            _timeouts(settings),
            largest=max(settings.flows, settings.cache, FLOWS),
            forgotten=self._forgotten,
            shortcuts=self._shortcuts,
        )
        self._use(settings)

    def set(self, settings: Settings) -> Templates | None:
        """Follow other *settings* from now on, and keep all flows.

        Returns the templates that do not hold any more, if there were any: clear() is still to be done.
        """
        before, self.settings = self.settings, settings
        self.flows.set_timeouts(_timeouts(settings))
        if _without(before) == _without(settings):
            self._limit(settings)
            return None
        old, self.templates = self.templates, None
        self._use(settings)
        self._make_room()
        self._tell_scheduler()
        return old

    def _use(self, settings: Settings) -> None:
        kind = SCHEDULERS[settings.scheduler]
        self.hashed, self.is_function = kind.hashed, kind.is_function
        self.scheduler: Scheduler = kind.make()
        self._apart: dict[int, Scheduler] = {}  # by IP version, where some server takes less by it
        self._views = []
        if settings.persistence and kind.hashed is Hashed.NOTHING:
            self.templates = Templates(settings.flows, settings.persistence)
        self._limit(settings)

    def _limit(self, settings: Settings) -> None:
        is_hashed = self.hashed is not Hashed.NOTHING
        self.flows.set_limit(settings.cache if is_hashed else settings.flows, is_cache=is_hashed)
        self._new = Bucket(settings.new_flows, 2.0 * settings.new_flows) if settings.new_flows else None

    def set_servers(
        self,
        rows: Sequence[ServerRow],
        sorry: ServerRow | None = None,
        *,
        is_sorry: bool = False,
        elsewhere: Sequence[tuple[int, Sequence[int]]] = (),
    ) -> None:
        """Have the servers of *rows*, in the order of the peers file, and a *sorry* server that new flows go to if *is_sorry*.

        *elsewhere* are the weights of all these, that of the sorry server last, as other directors see them; before them
        the IP version that they are for, 0 for both.

        Servers that are gone, or that take nothing any more, lose their flows; those of all others stay.  A server
        that comes back has none of its former ones.
        """
        self._shortcuts.forget_flows()
        self._free = [
            each.index
            for each in self.servers
            if each.peer is None and each is not self._gone and not self._is_in_use(each.index)
        ]
        before = {server.key: server for server in self.by_number.values()}
        if self.sorry is not None:
            before[_sorry_key(self.sorry.key)] = self.sorry
        alive = {key for key, server in before.items() if server.takes is not Takes.NOTHING}
        if any(row.takes is not Takes.NOTHING and row.key not in alive for row in rows if before):
            self.revivals += 1
        self.by_number = {}
        self._rows, self._is_sorry = tuple(rows), is_sorry
        self.is_draining = any(row.takes is Takes.KEPT for row in rows)
        self._elsewhere = tuple(elsewhere)
        for row in rows:
            self.by_number[row.number] = self._settle(before.pop(row.key, None), row)
        self.sorry = None
        if sorry is not None:
            self.sorry = self._settle(before.pop(_sorry_key(sorry.key), None), sorry)
        here = [*self.by_number.values(), *([] if self.sorry is None else [self.sorry])]
        shared = Counter(each.identity for each in here)
        self.by_identity = {each.identity: each for each in here if shared[each.identity] == 1}
        for server in before.values():
            server.lose()
            self._keep_totals(server)
        self._make_room()
        self._tell_scheduler()

    def _settle(self, server: Server | None, row: ServerRow) -> Server:
        """Return the server of *row*, which *server* was before, if it was there."""
        if server is not None and (row.takes is not Takes.NOTHING or server.takes is Takes.NOTHING):
            before = server.apart
            server.update(row)
            self._lost += (
                (server.index, version)
                for version, takes in row.apart
                if takes is Takes.NOTHING and before.get(version) is not Takes.NOTHING
            )
            return server
        index = self._free.pop() if self._free else len(self.servers)
        new = Server(index, row)
        if index == len(self.servers):
            self.servers.append(new)
        else:
            self.servers[index] = new
        if server is not None:
            new.connections, new.packets, new.bytes = server.connections, server.packets, server.bytes
            server.lose()
        return new

    def _nobody(self) -> int:
        """Return the index of a server that is gone, and whose place no other gets."""
        if self._gone is None:
            self._gone = Server(len(self.servers), ServerRow(-1, "", None))
            self.servers.append(self._gone)
            self._make_room()
        return self._gone.index

    def _is_in_use(self, index: int) -> bool:
        tables: list[Flows] = [self.flows] if self.templates is None else [self.flows, self.templates]
        return any(table.loads.active[index] or table.loads.inactive[index] for table in tables)

    def _keep_totals(self, server: Server) -> None:
        connections, packets, size = self.past
        self.past = connections + server.connections, packets + server.packets, size + server.bytes

    def _make_room(self) -> None:
        self.flows.make_room(len(self.servers))
        if self.templates is not None:
            self.templates.make_room(len(self.servers))

    def _tell_scheduler(self) -> None:
        reals = [self.by_number[row.number].real() for row in self._rows]
        self._limited = [real for real in reals if real.upper]
        self._view(reals)
        self.flows.news_of_all = self.hashed is Hashed.NOTHING or bool(self._limited) or bool(self._views)
        self.flows.loads.full.clear()
        self.scheduler.set_servers(reals)
        servers = [self.by_number[row.number] for row in self._rows]
        versions = {version for server in servers for version in server.apart}
        self._apart = {
            version: self._apart.get(version) or SCHEDULERS[self.settings.scheduler].make()
            for version in versions
        }
        for version, scheduler in self._apart.items():
            scheduler.set_servers([server.real(version) for server in servers])

    def numbered(self, number: int) -> Server | None:
        """Return the server of a number, the sorry server among them; None if there is none."""
        found = self.by_number.get(number)
        if found is None and self.sorry is not None and self.sorry.number == number:
            return self.sorry
        return found

    def _view(self, reals: Sequence[Real]) -> None:
        """Choose as other directors do, too, where a scheduler is a function of the flow."""
        elsewhere = () if self.hashed is Hashed.NOTHING else self._elsewhere
        make = SCHEDULERS[self.settings.scheduler].make
        del self._views[len(elsewhere) :]
        self._views += [View(make()) for _ in range(len(elsewhere) - len(self._views))]
        for view, (version, weights) in zip(self._views, elsewhere, strict=True):
            view.set_weights(version, reals, weights, None if self.sorry is None else self.sorry.index)

    def prepare(self) -> Iterator[None]:
        """Do what set_servers() and set() left to do, a piece each time that the iterator is asked."""
        self.is_preparing = True
        while True:
            while any(scheduler.prepare() for scheduler in self._schedulers()):
                yield
            if not self._lost:
                break
            yield from give_to(self.flows, *self._lost.pop(), self._nobody())
        self.is_preparing = False
        self.changes += 1

    def totals(self) -> tuple[int, int, int]:
        """Return how many connections, packets and bytes the service had, all servers that it ever had together."""
        now = [*self.by_number.values(), *([] if self.sorry is None else [self.sorry])]
        connections, packets, size = self.past
        return (
            connections + sum(each.connections for each in now),
            packets + sum(each.packets for each in now),
            size + sum(each.bytes for each in now),
        )

    # What a flow gets

    def may_begin(self, now: float) -> bool:
        """Take one permit for a new flow, and return whether there was one."""
        return self._new is None or self._new.take(1, now)

    def choose(self, client: bytes, port: bytes, address: bytes, now: float) -> Server | None:
        """Return the server for a new flow of a client's address and port to an *address* of the service."""
        if self.templates is not None and not self._leads_to_sorry:
            known = self.templates.server(self._network(client), now)
            if known is not None and self.servers[known].takes_new_by(_version(client)):
                return self.servers[known]
        for real in self._limited:
            self.flows.loads.heed(real)
        return self._scheduled(client, port, address, self.flows.loads)

    def is_astray(self, key: bytes, server: Server) -> bool:
        """Return whether the flow *key* has another *server* than it would get from a director that does not know it.

        That is this one, or one of those that see the servers otherwise.

        What depends on the number of flows, which other directors have not, is left out.
        """
        if self.hashed is Hashed.NOTHING:
            return True
        half = 4 if len(key) < 32 else 16
        client, address, port = key[:half], key[half : 2 * half], key[2 * half : 2 * half + 2]
        if self._scheduled(client, port, address, _NO_LOADS) is not server:
            return True
        version = _version(client)
        views = [view for view in self._views if view.version in {0, version}]
        flow = self._hash(client, port, address) if views else 0
        return any(view.choose(flow) != server.index for view in views)

    def _schedulers(self) -> list[Scheduler]:
        return [self.scheduler, *self._apart.values(), *(view.scheduler for view in self._views)]

    def scheduler_of(self, version: int) -> Scheduler:
        """Return what chooses servers for flows of an IP version: the same for both, as long as all servers take both."""
        return self._apart.get(version, self.scheduler)

    @property
    def _leads_to_sorry(self) -> bool:
        return self._is_sorry and self.sorry is not None and self.sorry.takes_new

    def _scheduled(self, client: bytes, port: bytes, address: bytes, loads: Loads) -> Server | None:
        sorry = self.sorry
        if self._leads_to_sorry:
            return sorry
        version = _version(client)
        scheduler = self.scheduler_of(version)
        index = scheduler.choose(self._hash(client, port, address), loads)
        if index is not None:
            return self.servers[index]
        return sorry if scheduler.is_ready and sorry is not None and sorry.takes_new_by(version) else None

    def begin(self, key: bytes, state: State, server: Server, now: float) -> bool:
        """Add a new flow to *server*; return False if there is no room for it."""
        if not self.flows.add(key, state, server.index, now):
            return False
        server.connections += 1
        if self.templates is not None:
            self.templates.began(self._client(key), server.index, now)
        return True

    def learn(self, key: bytes, state: State, server: Server, seen: float) -> bool:
        """Add a flow that another director has, last *seen* at that time; return False if there is no room for it.

        A flow that packets have proven here keeps its server, if that is not gone.
        """
        found = self.flows.find(key)
        if found is None:
            if not self.flows.add(key, state, server.index, seen):
                return False
            if self.templates is not None:
                self.templates.learn(self._client(key), server.index, seen, is_counted=True)
            found = self.flows.find(key)
            assert found is not None
            found[0].note_learnt(found[1])
            return True
        shard, row = found
        may_move = (
            self.servers[shard.server[row]].peer is None
            or shard.is_learnt(row)
            or shard.state[row] in UNPROVEN
        )
        if seen < shard.seen[row] and not may_move:
            return True
        if may_move:
            self.flows.move(shard, row, server.index)
        self.flows.set_state(shard, row, state, is_news=False)
        shard.seen[row] = max(shard.seen[row], seen)
        shard.note_learnt(row)
        return True

    def pass_by(self, client: bytes, server: Server, now: float) -> None:
        """Count a datagram to *server* that is a flow by itself."""
        server.connections += 1
        if self.templates is not None:
            self.templates.began(self._network(client), server.index, now, is_counted=False)

    def _hash(self, client: bytes, port: bytes, address: bytes) -> int:
        hashed = self.hashed
        if hashed is Hashed.FLOW and not self.settings.persistence:
            return zlib.crc32(port, zlib.crc32(client))
        if hashed is Hashed.NOTHING:
            return 0
        return zlib.crc32(address if hashed is Hashed.ADDRESS else self._network(client))

    def _network(self, client: bytes) -> bytes:
        if not self.settings.persistence:
            return client
        return network_of(client, self.settings.prefix4 if len(client) == 4 else self.settings.prefix6)

    def _client(self, key: bytes) -> bytes:
        """Return the network of the client whose flow has *key*."""
        return self._network(key[:4] if len(key) < 32 else key[:16])

    def _forgotten(self, key: bytes) -> None:
        if self.templates is not None:
            self.templates.ended(self._client(key))

    def sweep(self, now: float) -> bool:
        """Forget some flows whose time is over, and return whether there is more to look at in this round."""
        more = self.flows.sweep(now)
        if self.templates is not None:
            more = self.templates.sweep(now) or more
        return more


def _version(client: bytes) -> int:
    """Return the IP version of a client's address, or network."""
    return 4 if len(client) == 4 else 6


def _timeouts(settings: Settings) -> tuple[float, ...]:
    return timeouts(settings.tcp, settings.fin, settings.udp)


def _without(settings: Settings) -> Settings:
    """Return *settings* without those that change nothing of what is remembered."""
    return replace(settings, one_packet=False, tcp=0, fin=0, udp=0, new_flows=0)


def _sorry_key(key: str) -> str:
    """Return what tells the sorry server from a server that is the same."""
    return f"sorry {key}"
