"""``overlay services --ipvsadm``: services of this director as ``ipvsadm -Ln`` would print them with ip_vs.

A service is listed once for each of its addresses, protocols and ports.  Only the first has the counters of the
service, so that sums are right; a server is listed as long as it has flows, with its current weight.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overlay.cli.agents import ask
from overlay.cli.exits import Failure, Misuse
from overlay.cli.output import show
from overlay.cli.services import flows
from overlay.cli.surroundings import Surroundings
from overlay.services.ipvsadm import (
    COLUMNS,
    LOCAL,
    TUNNEL,
    Connection,
    Counts,
    Destination,
    VirtualService,
    format_connections,
    format_services,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from peers.addresses import Address

Command = TypeVar("Command", bound="Callable[..., Any]")

# Specification (ip_vs)
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
EVERY_PORT = 0

# Ours
# Schedulers with other names or flags in ip_vs; sh and mh always use another server if one takes no connections
SCHEDULERS = {"maglev": ("mh", ("mh-fallback",)), "sh": ("sh", ("sh-fallback",))}
BY_PORT = "mh-port"  # Maglev's, unless clients are persistent
KINDS = {"stats": "--stats", "rate": "--rate", "thresholds": "--thresholds", "tun_info": "--tun-info"}
CONNECTION = "connection"
ATTEMPTS = 4  # at rates, which a node knows after a second or two
PAUSE = 1.0  # seconds between them


@dataclass(frozen=True, slots=True)
class ListingOptions:
    """What to list: all services, or the one called *name*, with the options of ipvsadm.

    *filters* are those of flows.
    """

    name: str | None
    filters: Mapping[str, Any]
    stats: bool
    rate: bool
    thresholds: bool
    tun_info: bool
    connection: bool
    exact: bool
    nosort: bool
    is_list: bool
    is_numeric: bool

    @property
    def kinds(self) -> list[str]:
        """The options that ask for something other than servers and their loads."""
        return [name for name in (*KINDS, CONNECTION) if getattr(self, name)]


def lookalike_options(command: Command) -> Command:
    """Give *command* ``--ipvsadm`` and the options of ipvsadm that go with it."""
    options = (
        click.option("--ipvsadm", "is_lookalike", is_flag=True, help="Print the output of `ipvsadm -Ln`."),
        click.option("--stats", is_flag=True, help="With --ipvsadm: connections, packets and bytes so far."),
        click.option(
            "--rate", is_flag=True, help="With --ipvsadm: connections, packets and bytes in a second."
        ),
        click.option("--thresholds", is_flag=True, help="With --ipvsadm: the limits of servers."),
        click.option("--tun-info", is_flag=True, help="With --ipvsadm: the tunnels to servers."),
        click.option("-c", "--connection", is_flag=True, help="With --ipvsadm: the flows."),
        click.option("--exact", is_flag=True, help="With --ipvsadm: whole numbers, however large."),
        click.option("--nosort", is_flag=True, help="With --ipvsadm: in the order of the peers file."),
        click.option(
            "-L", "-l", "is_list", is_flag=True, help="With --ipvsadm: accepted and ignored; it always lists."
        ),
        click.option(
            "-n",
            "is_numeric",
            is_flag=True,
            help="With --ipvsadm: accepted and ignored; it never shows names.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise Misuse for an option of ipvsadm without ``--ipvsadm``."""
    for name, is_given in options.items():
        if is_given:
            option = {"is_list": "-L", "is_numeric": "-n"}.get(name, f"--{name.replace('_', '-')}")
            raise Misuse(f"{option} is an option of --ipvsadm: add that")


def show_lookalike(ctx: click.Context, interface: str, wanted: ListingOptions, prefix: str) -> None:
    """Print what ipvsadm would.  Raises Failure if any part of it is not known."""
    if len(wanted.kinds) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in wanted.kinds)
        raise Misuse(f"{options} ask for different listings: choose one")
    if not wanted.connection:
        flows.refuse_filters(wanted.filters, "--connection")
    services = _ask(ctx, interface, wanted)
    if wanted.connection:
        rows: list[Any] = []
        filters = {"limit": flows.MOST} | {
            key: each for key, each in wanted.filters.items() if each is not None
        }
        flows.ask_flows(ctx, interface, filters, rows.extend)
        show(connections(rows, services).rstrip("\n"), prefix)
        return
    option = KINDS[wanted.kinds[0]] if wanted.kinds else None
    text = listing(services, option, exact=wanted.exact, sort=not wanted.nosort, whole=wanted.name is None)
    show(text.removesuffix("\n"), prefix)


def _ask(ctx: click.Context, interface: str, wanted: ListingOptions) -> list[Mapping[str, Any]]:
    """Return the services, with rates if these should be listed."""
    for attempt in range(ATTEMPTS):
        if attempt:
            Surroundings.of(ctx).sleep(PAUSE)
        answer = ask(ctx, interface, op="services", name=wanted.name)
        services: list[Mapping[str, Any]] = answer["services"]
        if not answer.get("is_complete"):
            raise Failure(f"the forwarder of {interface} did not report its counters")
        if not wanted.rate or are_rates_known(services):
            return services
    raise Failure("the rates are not known yet: ask again in a few seconds")


def listing(
    services: Iterable[Mapping[str, Any]], option: str | None, *, exact: bool, sort: bool, whole: bool
) -> str:
    """Return the listing of *services*, from an agent's answer, that ``ipvsadm -Ln`` prints with *option*."""
    made = itertools.chain.from_iterable(map(virtual_services, services))
    columns = None if option is None else COLUMNS[option]
    return format_services(made, columns, is_exact=exact, is_sorted=sort, is_whole=whole)


def connections(flows: Iterable[Mapping[str, Any]], services: Iterable[Mapping[str, Any]]) -> str:
    """Return what ``ipvsadm -Lnc`` prints for *flows*; flows whose server is gone end with their next packet."""
    servers = {
        (service["name"], server["name"]): server for service in services for server in service["servers"]
    }
    return format_connections(
        connection
        for flow in flows
        if (connection := _connection(flow, servers.get((flow["service"], flow["server"])))) is not None
    )


def are_rates_known(services: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether each service and server has rates."""
    return all(
        row["packets_per_s"] is not None
        for each in services
        for row in (each, *each["servers"])
        if each["quorum"] is not None
    )


def virtual_services(service: Mapping[str, Any]) -> Iterator[VirtualService]:
    """Yield the services of ip_vs that *service* corresponds to; none if another node balances it."""
    if service["quorum"] is None:
        return
    scheduler, flags = SCHEDULERS.get(service["scheduler"], (service["scheduler"], ()))
    if scheduler == "mh" and not service["persistence"]:
        flags = (*flags, BY_PORT)
    places = itertools.product(map(ip_address, service["addresses"]), service["protocols"], _ports(service))
    for number, (address, protocol, port) in enumerate(places):
        is_first = not number
        yield VirtualService(
            address,
            port,
            PROTOCOLS[protocol],
            scheduler,
            tuple(
                _destination(server, address, port, is_first=is_first)
                for server in service["servers"]
                if _takes(server, address) != "nothing"
            ),
            flags=flags,
            persistence=service["persistence"],
            prefix=service["persistence_prefix"][f"ipv{address.version}"],
            one_packet=service["one_packet"],
            total=_totals(service) if is_first else Counts(),
            rate=_rates(service) if is_first else Counts(),
        )


def _ports(service: Mapping[str, Any]) -> Iterator[int]:
    if not service["ports"]:
        yield EVERY_PORT
    for written in service["ports"]:
        first, _, last = written.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _destination(server: Mapping[str, Any], virtual: Address, port: int, *, is_first: bool) -> Destination:
    return Destination(
        _real_address(server, virtual.version),
        server["port"] or port,
        LOCAL if server["tunnel"] is None else TUNNEL,
        server["effective_weight"] if _takes(server, virtual) == "new" else 0,
        active=server["active_flows"] if is_first else 0,
        inactive=server["inactive_flows"] if is_first else 0,
        upper=server["upper"],
        lower=server["lower"],
        tunnel=server["tunnel"] or "",
        total=_totals(server) if is_first else Counts(),
        rate=_rates(server) if is_first else Counts(),
    )


def _takes(server: Mapping[str, Any], virtual: Address) -> str:
    """Return which traffic to the address *virtual* a server accepts."""
    return str(server["takes_by"].get(f"ipv{virtual.version}", server["takes"]))


def _real_address(server: Mapping[str, Any], version: int) -> Address:
    """Return the address of a server, of IP *version* if possible."""
    addresses = [ip_address(each) for each in server["real_addresses"]]
    unspecified = ip_address("::" if version == 6 else "0.0.0.0")
    return next((each for each in addresses if each.version == version), (addresses or [unspecified])[0])


def _totals(row: Mapping[str, Any]) -> Counts:
    """Return the counters; answers do not pass a director, so nothing goes out."""
    return Counts(row["connections"], row["packets"], bytes_in=row["bytes"])


def _rates(row: Mapping[str, Any]) -> Counts:
    connections, packets, size = (
        round(row[f"{key}_per_s"] or 0) for key in ("connections", "packets", "bytes")
    )
    return Counts(connections, packets, bytes_in=size)


def _connection(flow: Mapping[str, Any], server: Mapping[str, Any] | None) -> Connection | None:
    if server is None:
        return None
    virtual = ip_address(flow["address"])
    return Connection(
        flow["protocol"].upper(),
        flow["left_s"],
        _state(flow),
        (ip_address(flow["client"]), flow["client_port"]),
        (virtual, flow["port"]),
        (_real_address(server, virtual.version), server["port"] or flow["port"]),
    )


def _state(flow: Mapping[str, Any]) -> str:
    """Return ip_vs's name of the state of a flow."""
    if flow["state"] in {"DATAGRAM", "UDP"}:
        return "UDP" if flow["protocol"] == "udp" else "ESTABLISHED"
    return "ESTABLISHED" if flow["state"] == "MIDSTREAM" else str(flow["state"])
