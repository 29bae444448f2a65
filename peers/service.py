"""A virtual service: one address in front of many servers, with its checks and the VRRP of its directors.

Values alone.  They are read in peers.services; what contradicts the rest of the table is refused there too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from peers.addresses import Address

# Specification
MOST_WEIGHT = 65535
MOST_DSCP = 63  # RFC 2474: 6 bits
LOCAL_USE = range(3, 64, 4)  # DSCPs of pool 2, "experimental or local use": RFC 2474 section 6
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # by the name in the file: IP protocol numbers

# Ours
SPOKEN = {
    "tcp": "tcp",
    "http": "tcp",
    "https": "tcp",
    "udp": "udp",
    "dns": "udp",
    "script": "tcp",
}  # by the kind of a check
EVERY_PORT = (1, 65535)
DSCPS: tuple[int, ...] = (
    *LOCAL_USE,
    *sorted(set(range(1, MOST_DSCP + 1)) - set(LOCAL_USE)),
)  # in the order of their use
MAGLEV = "maglev"
SCHEDULERS = (MAGLEV, "rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "fo", "ovf")
ALIASES = {"mh": MAGLEV}  # the kernel's name
REMOVE, KEEP = "remove", "keep"
DIRECT, DIRECTOR = "direct", "director"
UP, DOWN = "up", "down"
FIRST_PRIORITY, PRIORITY_STEP = 150, 10

Ports: TypeAlias = tuple[int, int]
"""The first and the last port of a range."""


@dataclass(frozen=True, slots=True)
class Check:
    """How a server is asked whether it works.

    *name* is that under ``[checks]``, empty where the check is written at the service.  *kind* tells which of the keys
    below count.  *port* differs from the service's, at the same server.  All times are in seconds: *every*
    from the end of one check to the next, *timeout* for a whole check, *retry_delay* before another try while up,
    *warmup* the time in a random part of which the first check begins (None: *every*).

    While up, *retries* more failures in a row are allowed; while down, *rise* successes in a row are asked for.
    *start* is the state before the first result.

    ``http`` and ``https``: *path* is asked for; *status* are the accepted ranges; *regex* is found in the body,
    *digest* is the MD5 or SHA-256 of the body in lower-case hexadecimal digits; *host* is the Host header; *sni* the
    name in TLS; with *verify* the certificate is verified, by *ca_file* or the system's authorities; *certificate_file*
    and *key_file* are those of the client.  ``udp``: *send* is sent; the answer begins with *expect*, or, for None,
    silence is good.  ``dns``: *query* is asked for by *query_type*.  ``script``: *command* is run; with
    *weight_from_exit* its exit status is the weight, as keepalived's ``misc_dynamic``.
    """

    kind: str
    name: str = ""
    port: int | None = None
    every: float = 6.0
    timeout: float = 5.0
    retries: int = 1
    retry_delay: float = 1.0
    warmup: float | None = None
    rise: int = 1
    start: str = UP
    path: str = "/"
    status: tuple[tuple[int, int], ...] = ((200, 299),)
    regex: str | None = None
    digest: str | None = None
    host: str | None = None
    sni: str | None = None
    verify: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    send: bytes = b""
    expect: bytes | None = None
    query: str = "."
    query_type: str = "SOA"
    command: tuple[str, ...] = ()
    weight_from_exit: bool = False

    @property
    def protocol(self) -> str | None:
        """What it speaks; None for one without ports."""
        return SPOKEN.get(self.kind)

    @property
    def fall(self) -> int:
        """How many failures in a row take a server down."""
        return self.retries + 1


@dataclass(frozen=True, slots=True)
class Server:
    """One entry among the servers of a service.

    *name* is as in ``web/web2``.  *address* is a container behind the host of *peer*; None is that host itself.  *port*
    None is the port that the client asked for.  *weight* is 0 to 65535; 0 is drained from the start.  From *upper*
    flows on, none are added until there are fewer than *lower*; 0 means no limit, and 3/4 of *upper*.  *checks* None
    are those of the service.
    """

    name: str
    peer: str
    address: Address | None = None
    port: int | None = None
    weight: int = 1
    upper: int = 0
    lower: int = 0
    checks: tuple[Check, ...] | None = None

    @property
    def key(self) -> str:
        """The identity of the server in schedulers, which does not depend on its place in the file."""
        return f"{self.address or self.peer}:{self.port or 0}"


@dataclass(frozen=True, slots=True)
class Vrrp:
    """How directors on one LAN agree on who holds the addresses of a service, or of several (RFC 9568, RFC 3768).

    *name* is that under ``[vrrp]``, ``services/NAME`` where it is written at a service.  *interface* is that of every
    director; *interfaces* and *priorities* are those of single ones, by the name of the peer.  *interval* is in
    seconds.  With *unicast* addresses, advertisements go to each of them but a host's own, instead of to the group.
    *password* is that of version 2, which is sent unencrypted.

    While one of *track_interfaces* is down, *track_overlay* holds and the overlay is not up here, or one of
    *track_services* lacks its quorum, the priority is less by *track_weight*, or, for 0, the router does not take part.
    """

    name: str
    router: int
    interface: str | None = None
    interfaces: Mapping[str, str] = field(default_factory=dict, hash=False)
    version: int = 3
    priority: int | None = None
    priorities: Mapping[str, int] = field(default_factory=dict, hash=False)
    interval: float = 1.0
    preempt: bool = True
    preempt_delay: float = 0.0
    unicast: tuple[Address, ...] = ()
    password: str = field(default="", repr=False)
    track_interfaces: tuple[str, ...] = ()
    track_overlay: bool = False
    track_services: tuple[str, ...] = ()
    track_weight: int = 0

    def interface_of(self, director: str) -> str | None:
        """Return the interface on which *director* speaks VRRP; None if nothing names one."""
        return self.interfaces.get(director, self.interface)

    def priority_of(self, director: str, directors: tuple[str, ...]) -> int:
        """Return the priority of *director*, one of *directors*: the first of them has the highest unless it is
        written.
        """
        default = self.priority or max(1, FIRST_PRIORITY - PRIORITY_STEP * directors.index(director))
        return self.priorities.get(director, default)


@dataclass(frozen=True, slots=True)
class Service:
    """One virtual service.

    *ports* are ranges, none of which overlap; empty is every port.  *protocols* are ``tcp``, ``udp``, ``sctp``.
    *directors* None is every node.  *persistence* is in seconds, 0 for none, of clients by the first
    *persistence_prefix* bits of their address, by IP version.  *checks* all have to succeed, and none is always up.
    *quorum* and *hysteresis* are sums of the weights of live servers.  *idle_tcp*, *idle_fin* and *idle_udp* are
    seconds until a flow is forgotten: established, closing, and of UDP.  *new_flows_per_second*, *most_flows* and
    *recent_flows* are limits, the last for the flows that are remembered in addition to Maglev's table.  Commands are
    programs with their arguments, empty for none.
    """

    name: str
    addresses: tuple[Address, ...]
    ports: tuple[Ports, ...] = ()
    protocols: tuple[str, ...] = ("tcp",)
    directors: tuple[str, ...] | None = None
    scheduler: str = MAGLEV
    persistence: int = 0
    persistence_prefix: Mapping[int, int] = field(default_factory=lambda: {4: 32, 6: 128}, hash=False)
    servers: tuple[Server, ...] = ()
    checks: tuple[Check, ...] = ()
    sorry: Server | None = None
    quorum: int = 1
    hysteresis: int = 0
    on_failure: str = REMOVE
    reply: str = DIRECT
    one_packet: bool = False
    slow_start: float = 0.0
    idle_tcp: float = 900.0
    idle_fin: float = 120.0
    idle_udp: float = 300.0
    new_flows_per_second: int = 10_000
    most_flows: int = 1_000_000
    recent_flows: int = 65_536
    up_command: tuple[str, ...] = ()
    down_command: tuple[str, ...] = ()
    quorum_up_command: tuple[str, ...] = ()
    quorum_down_command: tuple[str, ...] = ()
    vrrp: Vrrp | None = None

    @property
    def entries(self) -> tuple[Server, ...]:
        """Its servers, and behind them the sorry server if there is one that is not among them."""
        if self.sorry is None or any(server.key == self.sorry.key for server in self.servers):
            return self.servers
        return (*self.servers, self.sorry)

    def is_directed_by(self, peer: str) -> bool:
        """Return whether *peer* balances this service."""
        return self.directors is None or peer in self.directors

    def entries_at(self, peer: str) -> tuple[Server, ...]:
        """Return its entries at *peer*, the sorry server among them, in the order of the file."""
        return tuple(entry for entry in self.entries if entry.peer == peer)

    def checks_of(self, server: Server) -> tuple[Check, ...]:
        """Return the checks that decide whether *server* is up; none for the sorry server unless it has its own."""
        if server.checks is not None:
            return server.checks
        return () if server is self.sorry else self.checks

    def checked_ports(self) -> dict[str, tuple[int, ...]]:
        """Return the ports in addition to its own that its checks go to, by protocol;
        a server takes those from its directors too.
        """
        found: dict[str, dict[int, None]] = {}
        for entry in self.entries:
            for check in self.checks_of(entry):
                if check.port is not None and check.protocol is not None:
                    found.setdefault(check.protocol, {})[check.port] = None
        return {protocol: tuple(ports) for protocol, ports in found.items()}

    def dscps(self) -> dict[str, int]:
        """Return the DSCP that marks packets for each entry on its host, by the entry's key; 0 where it needs none.

        It needs one to tell its servers of this service apart, and as one of some directors to tell what has been
        chosen for it from what is still to be balanced.  (Where all are directors, nothing comes that was not chosen.)
        Both ends compute it from the same file, by the servers' identities and not by their order.
        """
        by_peer: dict[str, list[Server]] = {}
        for entry in self.entries:
            by_peer.setdefault(entry.peer, []).append(entry)
        found: dict[str, int] = {}
        for peer, entries in by_peer.items():
            found.update(self._dscps_at(peer, entries))
        return found

    def dscp_of(self, server: Server) -> int:
        """Return the DSCP of one of its entries."""
        return self._dscps_at(server.peer, self.entries_at(server.peer))[server.key]

    def _dscps_at(self, peer: str, entries: Sequence[Server]) -> dict[str, int]:
        """Return those of *entries*, which are all at *peer*."""
        needs_none = len(entries) == 1 and peer not in (self.directors or ())
        ordered = sorted(entries, key=_identity)
        return {
            entry.key: 0 if needs_none else dscp
            for entry, dscp in zip(ordered, DSCPS[: len(ordered)], strict=True)
        }


def _identity(server: Server) -> tuple[int, int, int]:
    """Return what sorts the servers at one host; one without an address comes first."""
    if server.address is None:
        return 0, 0, server.port or 0
    return server.address.version, int(server.address), server.port or 0
