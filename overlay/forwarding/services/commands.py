"""The agent's commands about virtual services, and the paths of packets to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never, cast

from overlay.errors import PacketError
from overlay.forwarding.services import server as services
from overlay.forwarding.services.balancer import Balancer
from overlay.forwarding.services.headers import key_of
from overlay.forwarding.services.permits import Permit, Permits
from overlay.forwarding.services.search import search
from overlay.forwarding.services.server import Takes
from overlay.forwarding.services.settings import ServiceSettings
from overlay.forwarding.services.shortcuts import Shortcuts
from overlay.forwarding.services.sync import Sync
from overlay.link.messages import OWN
from overlay.link.service_messages import (
    NO_ANSWER,
    AskFlows,
    AskServices,
    FlowRow,
    Flows,
    Pin,
    Pinned,
    RemoveService,
    ServerCounters,
    ServerRow,
    ServiceCounters,
    ServiceTotals,
    SetPermits,
    SetServers,
    SetService,
)
from overlay.services.schedulers import SCHEDULERS
from overlay.wire.bounds import ROWS
from overlay.wire.virtio import VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.services.vip import Vip
    from overlay.forwarding.workqueue import Workqueue
    from overlay.link.messages import Report, ServiceCommand
    from overlay.reasons import Drops
    from overlay.wire.ip import Buffer


class Services:
    """Everything that the forwarder has of virtual services.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self,
        peers: dict[int, LivePeer],
        own: LivePeer,
        jobs: Workqueue,
        drops: Drops,
        *,
        write: Callable[[Iterable[bytes | memoryview]], None],
        resend: Callable[[list[bytes]], None],
        report: Callable[[Report], object],
        send: Callable[[LivePeer, Keypair[LivePeer], bytes], object],
    ) -> None:
        """*resend* makes packets take the path of packets from the tun again, *write* writes to the tun, *send* seals a
        payload.
        """
        self._peers, self._own, self._jobs, self._drops = peers, own, jobs, drops
        self._report, self._write = report, write
        self.shortcuts = Shortcuts()
        self._balancer = Balancer(write, resend, self._later, self.shortcuts)
        self._balancer.drops.leader = drops
        self._sorry: dict[int, int] = {}  # the agent's number of each service's sorry server; -1 for none
        self._sync = Sync(peers, jobs, send)
        self.told = self._sync.take
        self.permits = Permits(self.shortcuts)

    def vip(self, address: bytes) -> LivePeer | None:
        """Return what takes the place of a peer in the table for the virtual *address*; None if it is not served."""
        return cast("LivePeer | None", self._balancer.vip(address))

    def is_virtual(self, address: bytes) -> bool:
        """Return whether this node balances *address*."""
        return self._balancer.vip(address) is not None

    def choose(
        self, vip: LivePeer, packet: memoryview, now: float, count: int, total: int
    ) -> LivePeer | None:
        """Return the peer for *packet*, which stands for *count* of *total* bytes, to a virtual address
        that vip() returned.

        None if it was answered, held or dropped; OWN for this node itself.
        """
        return cast("Vip", vip).choose(packet, now, count, total)

    def peek(self, vip: LivePeer, packet: memoryview) -> LivePeer | None:
        """Return the peer of the flow of *packet*, with nothing counted;
        None for what is to be looked at one by one.
        """
        return cast("Vip", vip).peek(packet)

    def remember(self, vip: LivePeer, packet: bytes) -> None:
        """Tell the compiled twin the flow of *packet*, to a virtual address, if the flow is known
        and continues.
        """
        key = key_of(packet)
        checked = None if key is None else self._balancer.pinned(key)
        if key is not None and checked is not None:
            self._lead(key, checked)
            return
        found = cast("Vip", vip).known(memoryview(packet))
        if self.shortcuts.lane is not None and found is not None:
            flow, shard, row, server = found
            is_noted = self.permits.returning  # each packet to this node, by delivered()
            if server.peer is not None and (server.peer.number != OWN or not is_noted):
                self.shortcuts.lane.remember_flow(flow, shard.seen, shard.state, row, server)

    def remember_admitted(self, peer: LivePeer, packet: Buffer) -> None:
        """Tell the compiled twin that *peer* may send *packet* from a source that is not its own, if it may."""
        if self.shortcuts.lane is not None and self.permits.admits(peer, packet):
            key = key_of(packet)
            if key is not None:
                self.shortcuts.lane.admit(peer.state, key)

    def deliver(self, buffer: memoryview) -> None:
        """Give a packet to a server that is this node itself, or behind it; its virtio header stands before it."""
        self.permits.delivered(self._own, buffer[VIRTIO_SIZE:])
        self.give_back(buffer)

    def give_back(self, buffer: memoryview) -> None:
        """Write a packet, its virtio header before it, to the tun that it came from."""
        try:
            self._write([buffer])
        except BlockingIOError:
            self._drops.add("tun_full", 1, buffer[VIRTIO_SIZE:])
        except OSError:
            self._drops.add("tun_refused", 1, buffer[VIRTIO_SIZE:])

    def instead_of(
        self, peer: LivePeer, packet: memoryview, now: float
    ) -> tuple[LivePeer, Keypair[LivePeer] | None]:
        """Return the peer and the keypair for *packet* in place of *peer*, with which there is no session.

        An answer that goes back through the director reaches a peer that knows the director alone.
        """
        director = self.permits.director_of(packet)
        if director is None or director.number == OWN:
            return peer, None
        return director, director.keypairs.usable(now) if director.clear is None else None

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return self._balancer.next_deadline()

    def handle_deadline(self, now: float) -> None:
        """Forget flows whose time is over, some at a time, and tell other directors of those that are there."""
        self._balancer.handle_deadline(now)
        self._sync.turn(now)

    # Commands

    def handle(self, command: ServiceCommand, link_is_idle: Callable[[], bool], now: float) -> None:
        """Carry out one message of the agent; what it cannot mean is counted as ``link`` and changes nothing.

        *link_is_idle* tells whether the agent has read all that it was told.
        """
        try:
            self._handle(command, link_is_idle, now)
        except PacketError as error:
            self._drops.add(error.reason)

    def _handle(self, command: ServiceCommand, link_is_idle: Callable[[], bool], now: float) -> None:
        match command:
            case SetService():
                self._set_service(command, now)
            case SetServers():
                self._check_service(command.service)
                rows = [self._row(row) for row in command.rows]
                sorry = [self._row(row) for row in command.sorry]
                count = len(rows) + len(sorry)
                if any(
                    version not in {0, 4, 6} or len(weights) != count
                    for version, weights in command.elsewhere
                ):
                    raise PacketError("link")
                self._sorry[command.service] = command.sorry[0].server if command.sorry else -1
                self._balancer.set_servers(
                    command.service,
                    rows,
                    sorry[0] if sorry else None,
                    is_sorry=command.is_sorry,
                    elsewhere=command.elsewhere,
                )
            case RemoveService():
                self._check_service(command.service)
                self._balancer.remove_service(command.service)
                self._sync.forget(command.service)
                del self._sorry[command.service]
            case SetPermits():
                self.permits.set(
                    (
                        row.address,
                        row.is_source,
                        Permit(
                            frozenset(row.peers) or None,
                            frozenset(row.protocols),
                            tuple(row.ports),
                            row.returns,
                        ),
                    )
                    for row in command.rows
                )
            case Pin():
                self._balancer.unpin(command.over)
                refused = [place for place, flow in enumerate(command.flows) if not self._pin(*flow)]
                if command.serial != NO_ANSWER:
                    self._report(Pinned(command.serial, refused))
            case AskServices():
                self._tell_counters(command.serial, link_is_idle, now)
            case AskFlows():
                self._tell_flows(command, link_is_idle, now)
            case _:
                assert_never(command)

    def _set_service(self, command: SetService, now: float) -> None:
        if command.scheduler not in SCHEDULERS or not command.addresses or not command.protocols:
            raise PacketError("link")
        tcp, fin, udp = command.idle
        new_flows, flows, cache = command.limits
        settings = ServiceSettings(
            command.scheduler,
            command.persistence,
            command.prefix4,
            command.prefix6,
            command.one_packet,
            tcp,
            fin,
            udp,
            new_flows,
            flows,
            cache,
        )
        place = command.addresses, command.protocols, command.ports
        self._balancer.set_service(
            command.service, command.name, settings, *place, is_shared=bool(command.directors)
        )
        self._sync.share(
            command.service, self._balancer.service(command.service), command.directors, *place, now
        )
        self._sorry.setdefault(command.service, -1)

    def _pin(self, key: bytes, service: int, server: int) -> bool:
        """Lead a flow of a health check to a server; return whether it is."""
        if not self._balancer.pin(key, service, server):
            return False
        found = self._balancer.pinned(key)
        if found is not None:
            self._lead(key, found)
        return True

    def _lead(self, key: bytes, server: services.Server) -> None:
        """Tell the twin a flow of a health check, and where its answers come from."""
        if server.peer is not None and server.peer.number != OWN:
            self.shortcuts.lead(key, server.uncounted)
            self.permits.expect(server.peer, key)

    def _check_service(self, service: int) -> None:
        if service not in self._sorry:
            raise PacketError("link")

    def _row(self, row: ServerRow) -> services.ServerSettings:
        peer = self._own if row.peer == OWN else self._peers.get(row.peer)
        takes, versions = set(Takes), [version for version, _ in row.apart]
        if peer is None or not takes.issuperset((row.takes, *(each for _, each in row.apart))):
            raise PacketError("link")
        if not {4, 6}.issuperset(versions) or len(set(versions)) < len(versions):
            raise PacketError("link")
        apart = tuple((version, Takes(each)) for version, each in row.apart)
        return services.ServerSettings(
            row.server, row.key, peer, row.weight, Takes(row.takes), row.dscp, row.upper, row.lower, apart
        )

    # Answers

    def _tell_counters(self, serial: int, link_is_idle: Callable[[], bool], now: float) -> None:
        servers = [
            ServerCounters(
                number, self._number(number, each.number),
                each.active, each.inactive, each.connections, each.packets, each.bytes,
            )
            for number in self._sorry
            for each in self._balancer.counters(number)
        ]  # fmt: skip
        totals = [
            ServiceTotals(number, *service.totals(), dict(service.drops))
            for number in self._sorry
            for service in [self._balancer.service(number)]
        ]
        drops = dict(self._balancer.drops)
        pieces = [
            (servers[at : at + ROWS], totals[at : at + ROWS])
            for at in range(0, max(len(servers), len(totals)), ROWS)
        ] or [([], [])]
        last = len(pieces) - 1

        def tell(piece: tuple[int, tuple[list[ServerCounters], list[ServiceTotals]]], _: float) -> None:
            self._report(ServiceCounters(serial, now, *piece[1], drops, piece[0] == last))

        self._jobs.add("services", enumerate(pieces), tell, link_is_idle)

    def _tell_flows(self, command: AskFlows, link_is_idle: Callable[[], bool], now: float) -> None:
        """Tell the flows as they are when their turn comes, as fast as the agent reads them."""
        if command.service not in self._sorry:
            self._report(Flows(command.serial, [], is_last=True))
            return
        service = self._balancer.service(command.service)
        numbers = {
            server.index: self._number(command.service, number)
            for number, server in service.by_number.items()
        }
        if service.sorry is not None:
            numbers[service.sorry.index] = self._number(command.service, -1)
        steps = search(service.flows, command.wanted, numbers, command.at, command.most, now)

        def tell(step: tuple[list[FlowRow], bool, int | None], _: float) -> None:
            found, is_last, rest = step
            if found or is_last:
                self._report(Flows(command.serial, found, is_last, rest))

        self._jobs.add("flows", steps, tell, link_is_idle)

    def _number(self, service: int, server: int) -> int:
        """Return the agent's number of a server: the sorry server's is -1 here."""
        return server if server >= 0 else self._sorry[service]

    def _later(self, steps: Iterator[None]) -> None:
        self._jobs.add("balancing", steps, lambda _, __: None)
