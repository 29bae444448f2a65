"""A virtual service as the forwarder has it: its servers, its flows, and which server a new flow gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from overlay.forwarding.ratelimit import Bucket
from overlay.forwarding.services.flows import FlowTable
from overlay.forwarding.services.losing import give_to
from overlay.forwarding.services.persistence import Templates
from overlay.forwarding.services.selection import Selection, version_of
from overlay.forwarding.services.server import Server, ServerSettings, Takes
from overlay.forwarding.services.settings import FLOWS, ServiceSettings
from overlay.reasons import Drops
from overlay.services.schedulers import Hashed
from overlay.services.states import UNPROVEN, State, timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.forwarding.services.shortcuts import Shortcuts
    from overlay.services.schedulers import Scheduler


class Service:
    """One service with all its addresses and ports."""

    def __init__(self, name: str, settings: ServiceSettings, shortcuts: Shortcuts | None = None) -> None:
        self.name = name
        self.drops = Drops()
        self.servers: list[Server] = []  # by index; some have lost their flows
        self._free: list[int] = []  # places of servers that have lost their flows and have none left
        self.by_number: dict[int, Server] = {}  # those of the peers file
        self.by_identity: dict[int, Server] = {}  # and the sorry server; none that share one
        self.past = (0, 0, 0)  # connections, packets and bytes of servers that are gone
        self.sorry: Server | None = None
        self._lost: list[tuple[int, int]] = []  # indices of servers, and IP versions whose flows they lose
        self._gone: Server | None = None  # whose flows are those that were lost so
        self.revivals = 0  # how often a server was given flows again that had been given none
        self.is_preparing = False  # an iterator of prepare() is in use
        self.changes = 0  # how often the scheduler has got other servers, and was ready for them
        self.is_draining = False  # a server is drained: a hash may lead flows elsewhere than when they began
        self.learns_until = 0.0  # what is not known may be a flow that another director will tell of
        self.templates: Templates | None = None
        self.settings = settings
        self.selection = Selection(self.servers, settings)
        self.flows = FlowTable(
            settings.flows,
            _timeouts(settings),
            largest=max(settings.flows, settings.cache, FLOWS),
            forgotten=self._forgotten,
            shortcuts=shortcuts,
        )
        self._remember_clients(settings)

    def set(self, settings: ServiceSettings) -> Templates | None:
        """Follow other *settings* from now on, and keep all flows.

        Returns the templates that do not hold any more, if there were any: clear() is still to be done.
        """
        before, self.settings = self.settings, settings
        self.flows.set_timeouts(_timeouts(settings))
        if _without(before) == _without(settings):
            self._limit(settings)
            return None
        old, self.templates = self.templates, None
        self.selection.use(settings)
        self._remember_clients(settings)
        self._make_room()
        self._tell_scheduler()
        return old

    def _remember_clients(self, settings: ServiceSettings) -> None:
        if settings.persistence and self.selection.hashed is Hashed.NOTHING:
            self.templates = Templates(settings.flows, settings.persistence)
        self._limit(settings)

    def _limit(self, settings: ServiceSettings) -> None:
        is_hashed = self.selection.hashed is not Hashed.NOTHING
        self.flows.set_limit(settings.cache if is_hashed else settings.flows, is_cache=is_hashed)
        self._new = Bucket(settings.new_flows, 2.0 * settings.new_flows) if settings.new_flows else None

    def set_servers(
        self,
        rows: Sequence[ServerSettings],
        sorry: ServerSettings | None = None,
        *,
        is_sorry: bool = False,
        elsewhere: Sequence[tuple[int, Sequence[int]]] = (),
    ) -> None:
        """Use the servers of *rows*, in the order of the peers file, and a *sorry* server
        that new flows go to if *is_sorry*.

        *elsewhere* are the weights of all these, that of the sorry server last, as other directors see them; before
        them the IP version that they are for, 0 for both.

        Servers that are gone, or that take nothing any more, lose their flows; those of all others stay.  A server
        that comes back has none of its former ones.
        """
        self.flows.shortcuts.forget_flows()
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
        self.is_draining = any(row.takes is Takes.KEPT for row in rows)
        for row in rows:
            self.by_number[row.number] = self._settle(before.pop(row.key, None), row)
        self.sorry = None
        if sorry is not None:
            self.sorry = self._settle(before.pop(_sorry_key(sorry.key), None), sorry)
        servers = [self.by_number[row.number] for row in rows]
        self.selection.set_servers(servers, self.sorry, is_sorry=is_sorry, elsewhere=elsewhere)
        here = [*self.by_number.values(), *([] if self.sorry is None else [self.sorry])]
        shared = Counter(each.identity for each in here)
        self.by_identity = {each.identity: each for each in here if shared[each.identity] == 1}
        for server in before.values():
            server.lose()
            self._keep_totals(server)
        self._make_room()
        self._tell_scheduler()

    def _settle(self, server: Server | None, row: ServerSettings) -> Server:
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
        """Return the index of a server that is gone, and whose place is not given to another."""
        if self._gone is None:
            self._gone = Server(len(self.servers), ServerSettings(-1, "", None))
            self.servers.append(self._gone)
            self._make_room()
        return self._gone.index

    def _is_in_use(self, index: int) -> bool:
        tables: list[FlowTable] = [self.flows] if self.templates is None else [self.flows, self.templates]
        return any(table.loads.active[index] or table.loads.inactive[index] for table in tables)

    def _keep_totals(self, server: Server) -> None:
        connections, packets, size = self.past
        self.past = connections + server.connections, packets + server.packets, size + server.bytes

    def _make_room(self) -> None:
        self.flows.make_room(len(self.servers))
        if self.templates is not None:
            self.templates.make_room(len(self.servers))

    def _tell_scheduler(self) -> None:
        self.selection.update()
        self.flows.news_of_all = self.selection.needs_every_flow
        self.flows.loads.full.clear()

    def numbered(self, number: int) -> Server | None:
        """Return the server of a number, the sorry server among them; None if there is none."""
        found = self.by_number.get(number)
        if found is None and self.sorry is not None and self.sorry.number == number:
            return self.sorry
        return found

    def prepare(self) -> Iterator[None]:
        """Do what set_servers() and set() left to do, a piece each time that the iterator is asked."""
        self.is_preparing = True
        while True:
            while any(scheduler.prepare() for scheduler in self.selection.schedulers()):
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
        if self.templates is not None and not self.selection.leads_to_sorry:
            known = self.templates.server(self.settings.network_of(client), now)
            if known is not None and self.servers[known].takes_new_by(version_of(client)):
                return self.servers[known]
        return self.selection.choose(client, port, address, self.flows.loads)

    def is_astray(self, key: bytes, server: Server) -> bool:
        """Return whether the flow *key* has another *server* than it would get from a director
        that does not know it.
        """
        half = 4 if len(key) < 32 else 16
        client, address, port = key[:half], key[half : 2 * half], key[2 * half : 2 * half + 2]
        return self.selection.is_astray(client, port, address, server)

    def scheduler_of(self, version: int) -> Scheduler:
        """Return what chooses servers for flows of an IP version."""
        return self.selection.scheduler_of(version)

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
            self.templates.began(self.settings.network_of(client), server.index, now, is_counted=False)

    def _client(self, key: bytes) -> bytes:
        """Return the network of the client whose flow has *key*."""
        return self.settings.network_of(key[:4] if len(key) < 32 else key[:16])

    def _forgotten(self, key: bytes) -> None:
        if self.templates is not None:
            self.templates.ended(self._client(key))

    def sweep(self, now: float) -> bool:
        """Forget some flows whose time is over, and return whether there is more to look at in this round."""
        more = self.flows.sweep(now)
        if self.templates is not None:
            more = self.templates.sweep(now) or more
        return more


def _timeouts(settings: ServiceSettings) -> tuple[float, ...]:
    return timeouts(settings.tcp, settings.fin, settings.udp)


def _without(settings: ServiceSettings) -> ServiceSettings:
    """Return *settings* without those that change nothing of what is remembered."""
    return replace(settings, one_packet=False, tcp=0, fin=0, udp=0, new_flows=0)


def _sorry_key(key: str) -> str:
    """Return what tells the sorry server from a server that is the same."""
    return f"sorry {key}"
