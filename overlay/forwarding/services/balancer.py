"""All virtual services of this node, as the agent's commands define them: the interface for the forwarder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.forwarding.services.service import Service
from overlay.forwarding.services.shortcuts import Shortcuts
from overlay.forwarding.services.vip import Shared, Vip
from overlay.wire.flow_key import parse_flow_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from overlay.forwarding.services.server import Server, ServerSettings
    from overlay.forwarding.services.settings import ServiceSettings
    from overlay.reasons import Drops

# Ours
ROUND = 10.0  # seconds in which the sweeps reach every flow
STEPS = 64  # of a round
PINS = 65_536  # flows of health checks at a time
EVERY_PORT = (0, 65_535)


@dataclass(frozen=True, slots=True)
class ServerTraffic:
    """The traffic and the number of flows of a server; *number* is -1 for the sorry server."""

    number: int
    active: int
    inactive: int
    connections: int
    packets: int
    bytes: int


@dataclass(slots=True)
class _Served:
    """A service, and where it is served."""

    service: Service
    addresses: tuple[bytes, ...] = ()
    protocols: tuple[int, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()


class Balancer:
    """Virtual services by the numbers that the agent gives them.

    *write* puts a packet into the tun, its virtio header before it; *resend* makes packets take the path of packets
    from the tun again, after the batch.  *later* runs the steps of an iterator between packets, as a job.
    """

    def __init__(
        self,
        write: Callable[[Iterable[bytes]], None],
        resend: Callable[[list[bytes]], None],
        later: Callable[[Iterator[None]], None],
        shortcuts: Shortcuts | None = None,
    ) -> None:
        self._shared = Shared(write, resend)
        self._shortcuts = shortcuts or Shortcuts()
        self._later = later
        self._served: dict[int, _Served] = {}
        self._vips: dict[bytes, Vip] = {}
        self._swept_at, self._is_sweeping = -math.inf, False

    @property
    def drops(self) -> Drops:
        """Packets to virtual addresses that were dropped, and belong to no service."""
        return self._shared.drops

    # Called by the agent

    def set_service(
        self,
        number: int,
        name: str,
        settings: ServiceSettings,
        addresses: Iterable[bytes],
        protocols: Iterable[int],
        ports: Iterable[tuple[int, int]] = (),
        *,
        is_shared: bool = False,
    ) -> None:
        """Add a service, or change its *settings* and addresses; it keeps its servers and flows.

        *ports* are ranges, the last of each included; none are all.  A service that *is_shared* has other directors,
        which are told of its flows where their scheduler does not find the servers itself (see sync).
        """
        served = self._served.get(number)
        if served is None:
            served = self._served[number] = _Served(Service(name, settings, self._shortcuts))
            served.service.drops.leader = self.drops
        else:
            served.service.name = name
            templates = served.service.set(settings)
            if templates is not None:
                self._later(templates.clear())
            self._prepare(served.service)
        service = served.service
        service.flows.keep_news(is_wanted=is_shared)
        served.addresses, served.protocols = tuple(addresses), tuple(protocols)
        served.ports = tuple(ports) or (EVERY_PORT,)
        self._place()

    def set_servers(
        self,
        number: int,
        rows: Sequence[ServerSettings],
        sorry: ServerSettings | None = None,
        *,
        is_sorry: bool = False,
        elsewhere: Sequence[tuple[int, Sequence[int]]] = (),
    ) -> None:
        """Set the servers of the service of a number, in the order of the peers file (see Service.set_servers)."""
        service = self._served[number].service
        service.set_servers(rows, sorry, is_sorry=is_sorry, elsewhere=elsewhere)
        self._prepare(service)

    def remove_service(self, number: int) -> None:
        """Forget a service and its flows."""
        service = self._served.pop(number).service
        self._shared.pins = {key: pin for key, pin in self._shared.pins.items() if pin[0] is not service}
        self._place()
        self._later(service.flows.clear())
        if service.templates is not None:
            self._later(service.templates.clear())

    def pin(self, key: bytes, service: int, server: int) -> bool:
        """Lead packets of a health check to a server, whatever its state;
        return False if it is unknown or there are too many.

        They go there until unpin(), and to no other server when that one is gone.
        *key* is the flow's (overlay.wire.flow_key).
        """
        served, pins = self._served.get(service), self._shared.pins
        if (
            served is None
            or served.service.numbered(server) is None
            or (len(pins) >= PINS and key not in pins)
        ):
            return False
        protocol, _, _, address, port = parse_flow_key(key)
        vip = self._vips.get(address)
        there = None if vip is None else vip.service(protocol, port.to_bytes(2, "big"))
        flow = None if there is None else there.flows.find(key)
        if there is not None and flow is not None:  # what is known of the flow goes before pins
            there.flows.remove(flow[0], key)
        pins[key] = (served.service, server)
        return True

    def pinned(self, key: bytes) -> Server | None:
        """Return the server that a flow is led to; None if it is none of a health check, or its server is gone."""
        pin = self._shared.pins.get(key)
        return None if pin is None else pin[0].numbered(pin[1])

    def unpin(self, keys: Iterable[bytes]) -> None:
        """Treat packets of these flows like all others again."""
        for key in keys:
            if self._shared.pins.pop(key, None) is not None:
                self._shortcuts.forget_flow(key)

    def _place(self) -> None:
        """Update the services of each virtual address."""
        self._shortcuts.forget_flows()
        rules: dict[bytes, list[tuple[int, int, int, Service]]] = {address: [] for address in self._vips}
        for served in self._served.values():
            found = [
                (protocol, first, last, served.service)
                for protocol in served.protocols
                for first, last in served.ports
            ]
            for address in served.addresses:
                rules.setdefault(address, []).extend(found)
        for address, found in rules.items():
            if address not in self._vips:
                self._vips[address] = Vip(address, self._shared)
            self._vips[address].set_rules(found)
            if not found:
                del self._vips[address]

    def _prepare(self, service: Service) -> None:
        if not service.is_preparing:
            self._later(service.prepare())

    # Called by the forwarder

    def vip(self, address: bytes) -> Vip | None:
        """Return the virtual address of 4 or 16 bytes, the same object as long as a service has it."""
        return self._vips.get(address)

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return self._swept_at + ROUND / STEPS if self._served else math.inf

    def handle_deadline(self, now: float) -> None:
        """Sweep a shard of each service."""
        if now < self.next_deadline():
            return
        self._swept_at = now
        if not self._is_sweeping:
            self._is_sweeping = True
            self._later(self._sweep(now))

    def _sweep(self, now: float) -> Iterator[None]:
        for served in list(self._served.values()):
            if served.service.sweep(now):
                yield
        self._is_sweeping = False

    def counters(self, number: int) -> list[ServerTraffic]:
        """Return the counters of the servers of a service, in the order of the peers file, the sorry server last."""
        service = self._served[number].service
        loads = service.flows.loads
        rows: list[tuple[int, Server]] = list(service.by_number.items())
        if service.sorry is not None:
            rows.append((-1, service.sorry))
        return [
            ServerTraffic(
                place,
                loads.active[server.index],
                loads.inactive[server.index],
                server.connections,
                server.packets,
                server.bytes,
            )
            for place, server in rows
        ]

    def service(self, number: int) -> Service:
        """Return the service of a number."""
        return self._served[number].service
