"""``overlay network export``: a network in etcd as a peers file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.network.common import network_option, open_network
from overlay.cli.output import show, warn

if TYPE_CHECKING:
    from peers.stores import Location


@click.command(
    "export", epilog="Example: overlay network export --peers etcd://10.0.0.5:2379/office > peers.toml"
)
@network_option
@click.option(
    "--document", is_flag=True, help="Print only the document, as `overlay network import` accepts it."
)
def command(location: Location, document: bool) -> None:
    """Print a network in etcd as a peers file, with a section for each node that takes part now."""
    network = open_network(location)
    if document:
        show(network.read_text()[0].removesuffix("\n"))
        return
    known = network.read()
    show(network.compose_all(known).removesuffix("\n"))
    for sentence in known.members.left_out:
        warn(str(sentence))
