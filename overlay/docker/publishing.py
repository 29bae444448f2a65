"""Published ports as nft rules: packets for a port of the host are passed on to a container.

Not at 127.0.0.1: the kernel lets packets from there leave the host only by an interface with route_localnet, through
which a container could then reach what listens at 127.0.0.1 of the host.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.linux import DESTINATION_NAT, SOURCE_NAT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.docker.calls import Published
    from overlay.docker.record import DockerEndpoint

_FAMILIES = {4: "ip", 6: "ip6"}


def publishing(endpoints: Iterable[DockerEndpoint]) -> str:
    """Return the chains of a table of the family inet that publish the ports of *endpoints*; empty for none."""
    coming: list[str] = []
    returned: list[str] = []
    for endpoint in endpoints:
        for address in endpoint.addresses if endpoint.published else ():
            family = _FAMILIES[address.version]
            to = f"{address}" if address.version == 4 else f"[{address}]"
            found = [
                f"{_where(port, address.version)} {port.protocol} dport {port.host_port} dnat {family} to "
                f"{to}:{port.port}"
                for port in endpoint.published
                if not port.host or ip_address(port.host).version == address.version
            ]
            coming += found
            if found:  # or a container that asks the host for itself would get, and drop, its own packets
                returned.append(
                    f"ct status dnat {family} saddr {address} {family} daddr {address} masquerade"
                )
    if not coming:
        return ""
    return (
        _chain("coming", f"type nat hook prerouting priority {DESTINATION_NAT}", coming)
        + _chain("own", f"type nat hook output priority {DESTINATION_NAT}", coming)
        + _chain("returned", f"type nat hook postrouting priority {SOURCE_NAT - 10}", returned)
    )


def find_conflict(endpoints: Iterable[DockerEndpoint], wanted: Iterable[Published]) -> Published | None:
    """Return the first of *wanted* whose port of the host *endpoints* have already; None if all are free."""
    taken = [port for endpoint in endpoints for port in endpoint.published]
    for each in wanted:
        for other in taken:
            same_host = not other.host or not each.host or other.host == each.host
            if same_host and (other.protocol, other.host_port) == (each.protocol, each.host_port):
                return each
    return None


def _where(port: Published, version: int) -> str:
    if port.host:
        return f"{_FAMILIES[version]} daddr {port.host}"
    loopback = "ip daddr != 127.0.0.0/8" if version == 4 else "ip6 daddr != ::1"
    return f"{loopback} fib daddr type local"


def _chain(name: str, hook: str, rules: Iterable[str]) -> str:
    lines = "".join(f"\t\t{each}\n" for each in rules)
    return f"\tchain {name} {{\n\t\t{hook}; policy accept;\n{lines}\t}}\n"
