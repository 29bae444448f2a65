"""The settings of a virtual service as the forwarder has them."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.forwarding.services.persistence import network_of
from overlay.services.states import FIN_TIMEOUT, TCP_TIMEOUT, UDP_TIMEOUT

# Ours
NEW_FLOWS = 20_000  # per second and service, twice as many at once
FLOWS = 1_000_000  # of a service whose scheduler needs to know them
CACHE = 65_536  # of one whose scheduler is a function of the flow; more are only forgotten earlier


@dataclass(frozen=True, slots=True)
class ServiceSettings:
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

    def network_of(self, client: bytes) -> bytes:
        """Return the network of a client's address whose clients keep one server; without persistence, the address."""
        if not self.persistence:
            return client
        return network_of(client, self.prefix4 if len(client) == 4 else self.prefix6)
