"""``overlay network release``: give up a subnet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.network.common import network_option, open_network
from overlay.cli.output import show

if TYPE_CHECKING:
    from peers.stores import Location


@click.command(
    "release", epilog="Example: overlay network release --peers etcd://10.0.0.5:2379/office 10.244.7.0/24"
)
@network_option
@click.argument("subnet_or_node")
def command(location: Location, subnet_or_node: str) -> None:
    """Remove the reservation of a subnet, and the node with that subnet, name or public key.

    A host whose agent runs claims its subnet again: stop it first, with `overlay down --leave` there.  In a signed
    network the enrolment of the node is removed, too, so that it cannot come back, and unused join tokens for the
    subnet or the name.
    """
    for sentence in open_network(location).release(subnet_or_node):
        show(f"removed {sentence}")
