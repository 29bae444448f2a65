"""The output of ipvsadm 1.31, byte for byte, for programs that read it: ``ipvsadm -Ln`` and its options.

Spaces at the ends of lines are ipvsadm's, and so is the order: services by mark, family, protocol, address and port,
and servers by address and port, where addresses are compared by the sign of the 32 bits of their difference, so that
192.0.2.1 comes before 10.0.0.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cmp_to_key
from ipaddress import IPv4Network, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from peers.addresses import Address

# Specification (ipvsadm 1.31)
VERSION = "1.2.1"  # of ip_vs
PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}
TUNNEL, LOCAL = "Tunnel", "Local"  # how packets are forwarded
SHORTENED = 100_000_000  # numbers from here on lose their last digits
UNITS = ((10**9, 10**3, "K"), (10**11, 10**6, "M"), (10**14, 10**9, "G"))
LARGEST_UNIT = (10**12, "T")

# Ours
TABLE_SIZE = 4096  # ip_vs's default number of buckets, which the first line shows


@dataclass(frozen=True, slots=True)
class Counts:
    """Connections, packets and bytes since the start, or in a second."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """A server.  *tunnel* is the type of its tunnel, if *forwarding* is by one."""

    address: Address
    port: int
    forwarding: str = TUNNEL
    weight: int = 1
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    upper: int = 0
    lower: int = 0
    tunnel: str = "ipip"
    total: Counts = field(default_factory=Counts)
    rate: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A service at *address* and *port*, or for packets with a *mark*; then the address only gives the family.

    *protocol* is the number of an IP protocol.  *persistence* is in seconds, 0 for none, of clients by the first
    *prefix* bits of their address, None for all.  *flags* are those of the scheduler.
    """

    address: Address
    port: int
    protocol: int
    scheduler: str
    destinations: tuple[Destination, ...] = ()
    mark: int = 0
    flags: tuple[str, ...] = ()
    persistence: int = 0
    prefix: int | None = None
    one_packet: bool = False
    total: Counts = field(default_factory=Counts)
    rate: Counts = field(default_factory=Counts)

    @property
    def mask(self) -> str:
        """The mask of its clients as ipvsadm writes it; empty if it is the whole address."""
        if self.prefix is None or self.prefix == self.address.max_prefixlen:
            return ""
        if self.address.version == 6:
            return str(self.prefix)
        return str(IPv4Network((0, self.prefix)).netmask)


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of the connection table, or the template of a persistent client; it *expires* in so many seconds."""

    protocol: str
    expires: float
    state: str
    client: tuple[Address, int]
    virtual: tuple[Address, int]
    server: tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Columns:
    """What a listing shows: its head, and what follows the names of services and of servers.

    Without *service*, a service has its scheduler and flags.  The last argument says whether numbers stay exact.
    """

    head: str
    destination: Callable[[Destination, bool], str]
    service: Callable[[VirtualService, bool], str] | None = None


def format_services(
    services: Iterable[VirtualService],
    columns: Columns | None = None,
    *,
    is_exact: bool = False,
    is_sorted: bool = True,
    is_whole: bool = True,
    size: int = TABLE_SIZE,
) -> str:
    """Return what ``ipvsadm -Ln`` prints with the option of *columns*, ``LIST`` for none.

    *is_exact* stands for ``--exact``, *is_sorted* for the absence of ``--nosort``.  With *is_whole* it is the whole
    table, otherwise a single service that was asked for.
    """
    columns = LIST if columns is None else columns
    lines = [f"IP Virtual Server version {VERSION} (size={size})"] if is_whole else []
    lines.append(columns.head)
    for service in _ordered(services) if is_sorted else services:
        shown = columns.service
        if shown is None:
            lines.append(f"{_name(service)} {' '.join(_flags(service))}")
        else:
            lines.append(f"{_name(service):<33}{shown(service, is_exact)}")
        lines += [
            f"  -> {_at(each.address, each.port):<28}{columns.destination(each, is_exact)}"
            for each in (_destinations(service) if is_sorted else service.destinations)
        ]
    return "".join(f"{line}\n" for line in lines)


def format_connections(connections: Iterable[Connection]) -> str:
    """Return what ``ipvsadm -Lnc`` prints."""
    lines = [
        "IPVS connection entries",
        f"pro expire {'state':<11} {'source':<18} {'virtual':<18} destination",
    ]
    for each in connections:
        minutes, seconds = divmod(max(int(each.expires), 0), 60)
        places = f"{_at(*each.client):<18} {_at(*each.virtual):<18} {_at(*each.server)}"
        lines.append(f"{each.protocol:<3} {f'{minutes:02d}:{seconds:02d}':<6} {each.state:<11} {places}")
    return "".join(f"{line}\n" for line in lines)


def _counts(counts: Counts, *, is_exact: bool) -> str:
    numbers = (counts.connections, counts.packets_in, counts.packets_out, counts.bytes_in, counts.bytes_out)
    return "".join(_number(number, is_exact=is_exact) for number in numbers)


def _rates(counts: Counts, *, is_exact: bool) -> str:
    """Return the rates of a server; only those of bytes are shortened."""
    whole = (counts.connections, counts.packets_in, counts.packets_out)
    shortened = (counts.bytes_in, counts.bytes_out)
    return "".join(f" {number:>8}" for number in whole) + "".join(
        _number(number, is_exact=is_exact) for number in shortened
    )


def _number(number: int, *, is_exact: bool) -> str:
    """Return *number* right-aligned in nine columns (print_largenum)."""
    if is_exact:
        return f" {number:>8}"
    if number < SHORTENED:
        return f"{number:>9}"
    for below, divisor, unit in UNITS:
        if number < below:
            return f"{number // divisor:>8}{unit}"
    divisor, unit = LARGEST_UNIT
    return f"{number // divisor:>8}{unit}"


def _loads(destination: Destination) -> str:
    return f"{destination.active:<10} {destination.inactive:<10}"


def _tunnel_info(destination: Destination) -> str:
    return destination.tunnel if destination.forwarding == TUNNEL else "n/a"


def _head(*names: str) -> str:
    """Return the two lines above numbers, which services and servers have in common."""
    return f"{'Prot LocalAddress:Port':<33}{''.join(names)}\n  -> RemoteAddress:Port"


LIST = Columns(
    "Prot LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
    lambda each, _: f" {each.forwarding:<7} {each.weight:<6} {_loads(each)}",
)
STATS = Columns(
    _head(*(f" {name:>8}" for name in ("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"))),
    lambda each, is_exact: _counts(each.total, is_exact=is_exact),
    lambda each, is_exact: _counts(each.total, is_exact=is_exact),
)
RATE = Columns(
    _head(*(f" {name:>8}" for name in ("CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"))),
    lambda each, is_exact: _rates(each.rate, is_exact=is_exact),
    lambda each, is_exact: _counts(each.rate, is_exact=is_exact),
)
THRESHOLDS = Columns(
    _head(*(f" {name:<10}" for name in ("Uthreshold", "Lthreshold", "ActiveConn", "InActConn"))),
    lambda each, _: f" {each.upper:<10} {each.lower:<10} {_loads(each)}",
)
PERSISTENT = Columns(
    _head(f" {'Weight':<9} {'PersistConn':<11} {'ActiveConn':<10} {'InActConn':<10}"),
    lambda each, _: f" {each.weight:<9} {each.persistent:<11} {_loads(each)}",
)
TUNNELS = Columns(
    "Prot LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn",
    lambda each, _: f" {each.forwarding:<7} {_tunnel_info(each):<13} {each.weight:<6} {_loads(each)}",
)

COLUMNS = {
    "--stats": STATS,
    "--rate": RATE,
    "--thresholds": THRESHOLDS,
    "--persistent-conn": PERSISTENT,
    "--tun-info": TUNNELS,
}
"""What a listing shows in addition to LIST, by the option of ipvsadm."""


def _name(service: VirtualService) -> str:
    if service.mark:
        return f"FWM  {service.mark}{' IPv6' if service.address.version == 6 else ''}"
    return f"{PROTOCOLS[service.protocol]:<4} {_at(service.address, service.port)}"


def _flags(service: VirtualService) -> list[str]:
    words = [service.scheduler]
    if service.flags:
        words.append(f"({','.join(service.flags)})")
    if service.persistence:
        words.append(f"persistent {service.persistence}")
        words += [f"mask {service.mask}"] if service.mask else []
    return [*words, "ops"] if service.one_packet else words


def _at(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _ordered(services: Iterable[VirtualService]) -> list[VirtualService]:
    in_place = sorted(services, key=cmp_to_key(_compare_places))
    return sorted(
        in_place, key=lambda each: (each.mark, each.address.version, 0 if each.mark else each.protocol)
    )


def _destinations(service: VirtualService) -> Sequence[Destination]:
    return sorted(service.destinations, key=cmp_to_key(_compare_places))


def _compare_places(one: VirtualService | Destination, other: VirtualService | Destination) -> int:
    return _compare(one.address, other.address) or one.port - other.port


def _compare(one: Address, other: Address) -> int:
    """Return which address comes first: the sign of the difference as a C int, word for word (ipvs_cmp_services)."""
    if one.version != other.version:
        return one.version - other.version
    for word, against in zip(_words(one), _words(other), strict=True):
        difference = (word - against) & 0xFFFFFFFF
        if difference:
            return -1 if difference & 0x80000000 else 1
    return 0


def _words(address: Address) -> list[int]:
    shifts = (96, 64, 32, 0) if isinstance(address, IPv6Address) else (0,)
    return [int(address) >> shift & 0xFFFFFFFF for shift in shifts]
