"""Which server a new flow of a virtual service gets, here and at directors that see the servers otherwise."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from overlay.forwarding.services.views import View
from overlay.services.schedulers import SCHEDULERS, Hashed, Loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.forwarding.services.server import Server
    from overlay.forwarding.services.settings import ServiceSettings
    from overlay.services.schedulers import Real, Scheduler

_NO_LOADS = Loads()  # no server has too many flows


class Selection:
    """The choice among *places*, the servers of a service by index, by the scheduler of *settings*."""

    def __init__(self, places: Sequence[Server], settings: ServiceSettings) -> None:
        self._places = places
        self._servers: Sequence[Server] = ()  # those of the peers file, in its order
        self._sorry: Server | None = None
        self._is_sorry = False  # new flows go to it
        self._elsewhere: Sequence[tuple[int, Sequence[int]]] = ()
        self._limited: Sequence[Real] = ()  # with thresholds
        self.use(settings)

    def use(self, settings: ServiceSettings) -> None:
        """Choose by *settings* from now on; update() is still to be called."""
        kind = SCHEDULERS[settings.scheduler]
        self._settings = settings
        self.hashed, self.is_function = kind.hashed, kind.is_function
        self._scheduler: Scheduler = kind.make()
        self._apart: dict[int, Scheduler] = {}  # by IP version, where some server takes less by it
        self._views: list[View] = []  # how other directors choose that see the servers otherwise

    def set_servers(
        self,
        servers: Sequence[Server],
        sorry: Server | None,
        *,
        is_sorry: bool,
        elsewhere: Sequence[tuple[int, Sequence[int]]],
    ) -> None:
        """Choose among *servers* from now on, as Service.set_servers() says; update() is still to be called."""
        self._servers, self._sorry, self._is_sorry = servers, sorry, is_sorry
        self._elsewhere = tuple(elsewhere)

    def update(self) -> None:
        """Tell the schedulers of the servers; each of them is ready once it is prepared."""
        reals = [server.real() for server in self._servers]
        self._limited = [real for real in reals if real.upper]
        self._update_views(reals)
        self._scheduler.set_servers(reals)
        versions = {version for server in self._servers for version in server.apart}
        make = SCHEDULERS[self._settings.scheduler].make
        self._apart = {version: self._apart.get(version) or make() for version in versions}
        for version, scheduler in self._apart.items():
            scheduler.set_servers([server.real(version) for server in self._servers])

    def _update_views(self, reals: Sequence[Real]) -> None:
        """Choose as other directors do, too, where a scheduler is a function of the flow."""
        elsewhere = () if self.hashed is Hashed.NOTHING else self._elsewhere
        make = SCHEDULERS[self._settings.scheduler].make
        del self._views[len(elsewhere) :]
        self._views += [View(make()) for _ in range(len(elsewhere) - len(self._views))]
        for view, (version, weights) in zip(self._views, elsewhere, strict=True):
            view.set_weights(version, reals, weights, None if self._sorry is None else self._sorry.index)

    def schedulers(self) -> Iterator[Scheduler]:
        """Yield the schedulers to be prepared."""
        yield self._scheduler
        yield from self._apart.values()
        for view in self._views:
            yield view.scheduler

    def scheduler_of(self, version: int) -> Scheduler:
        """Return what chooses servers for flows of an IP version: the same for both,
        as long as all servers take both.
        """
        return self._apart.get(version, self._scheduler)

    @property
    def needs_every_flow(self) -> bool:
        """Whether another director must be told of every flow to choose as this one does."""
        return self.hashed is Hashed.NOTHING or bool(self._limited) or bool(self._views)

    @property
    def leads_to_sorry(self) -> bool:
        """Whether all new flows go to the sorry server."""
        return self._is_sorry and self._sorry is not None and self._sorry.takes_new

    def choose(self, client: bytes, port: bytes, address: bytes, loads: Loads) -> Server | None:
        """Return the server for a new flow of a client's address and port to an *address* of the service.

        *loads* are the flows that the servers have; those beyond their thresholds are left out.
        """
        for real in self._limited:
            loads.heed(real)
        return self._scheduled(client, port, address, loads)

    def is_astray(self, client: bytes, port: bytes, address: bytes, server: Server) -> bool:
        """Return whether a flow has another *server* than it would get from a director that does not know it.

        That is this one, or one of those that see the servers otherwise.  What depends on the number of flows, which
        other directors have not, is left out.
        """
        if self.hashed is Hashed.NOTHING:
            return True
        if self._scheduled(client, port, address, _NO_LOADS) is not server:
            return True
        version = version_of(client)
        views = [view for view in self._views if view.version in {0, version}]
        flow = self._hash(client, port, address) if views else 0
        return any(view.choose(flow) != server.index for view in views)

    def _scheduled(self, client: bytes, port: bytes, address: bytes, loads: Loads) -> Server | None:
        sorry = self._sorry
        if self.leads_to_sorry:
            return sorry
        version = version_of(client)
        scheduler = self.scheduler_of(version)
        index = scheduler.choose(self._hash(client, port, address), loads)
        if index is not None:
            return self._places[index]
        return sorry if scheduler.is_ready and sorry is not None and sorry.takes_new_by(version) else None

    def _hash(self, client: bytes, port: bytes, address: bytes) -> int:
        hashed = self.hashed
        if hashed is Hashed.FLOW and not self._settings.persistence:
            return zlib.crc32(port, zlib.crc32(client))
        if hashed is Hashed.NOTHING:
            return 0
        return zlib.crc32(address if hashed is Hashed.ADDRESS else self._settings.network_of(client))


def version_of(client: bytes) -> int:
    """Return the IP version of a client's address, or network."""
    return 4 if len(client) == 4 else 6
