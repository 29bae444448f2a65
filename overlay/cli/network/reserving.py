"""``overlay network reserve``: keep a subnet for a host."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.exits import Misuse
from overlay.cli.network.common import network_option, open_network, read_name, read_public_key, read_subnet
from overlay.cli.output import show

if TYPE_CHECKING:
    from peers.stores import Location


@click.command(
    "reserve",
    epilog="Example: overlay network reserve --peers etcd://10.0.0.5:2379/office 10.244.7.0/24 --node paris",
)
@network_option
@click.argument("subnet")
@click.option("--node", metavar="NAME", help="The host that gets the subnet, by its name.")
@click.option("--public-key", metavar="KEY", help="The host that gets the subnet, by its public key.")
def command(location: Location, subnet: str, node: str | None, public_key: str | None) -> None:
    """Reserve a subnet for one host, which gets it when it joins."""
    from peers.stores.etcd.layout import Reservation

    if (node is None) == (public_key is None):
        raise Misuse("name the host that gets the subnet: give either --node NAME or --public-key KEY")
    kept = Reservation(
        read_subnet(subnet),
        None if node is None else read_name(node),
        None if public_key is None else read_public_key(public_key),
    )
    open_network(location).reserve(kept)
    show(f"{kept.subnet} is reserved for {node or public_key}")
