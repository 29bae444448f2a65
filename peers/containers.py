"""Networks that container tools use on every host where they are installed, unless configured otherwise."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers.table import Table

# Specification: docs.docker.com on the default bridge; podman-network-create(1)
DEFAULTS = (
    (IPv4Network("172.17.0.0/16"), "Docker", "docker0", '"bip" in /etc/docker/daemon.json'),
    (IPv4Network("10.88.0.0/16"), "podman", "podman0", "`default_subnet` in containers.conf"),
)


def default_networks(table: Table) -> list[str]:
    """Return a sentence for each of those networks that *table* uses too: it is taken from the tunnel on such hosts."""
    named = [(prefix, "network.prefix") for prefix in table.network.prefixes]
    named += [(prefix, f"a subnet of peers.{name}") for prefix, name in table.routes]
    sentences = []
    for network, tool, interface, setting in DEFAULTS:
        for prefix, where in named:
            if prefix.version == 4 and prefix.overlaps(network) and prefix.prefixlen >= network.prefixlen:
                sentences.append(
                    f"{prefix}, {where}, is in the network that {tool} gives {interface} on each host by default, "
                    f"which then takes its packets; choose another, or set {setting} on every host"
                )
                break
    return sentences
