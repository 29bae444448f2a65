"""``overlay network join-token``: make a token with which one host enrolls itself."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from overlay.cli.network.common import (
    admin_key_option,
    load_admin_key,
    network_option,
    open_network,
    read_name,
    read_subnet,
)
from overlay.cli.options import Number
from overlay.cli.output import show

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores import Location

# Ours
MOST_MINUTES = 365 * 24 * 60


@click.command(
    "join-token", epilog="Example: overlay network join-token --peers etcd://10.0.0.5:2379/office > token"
)
@network_option
@admin_key_option
@click.option(
    "--minutes",
    type=Number(1, MOST_MINUTES),
    default=60,
    metavar="N",
    help="How long it is valid, in minutes.",
)
@click.option("--node", metavar="NAME", help="Let it enroll only a host with this name.")
@click.option("--subnet", metavar="SUBNET", help="Let it enroll only a host with this subnet.")
def command(
    location: Location, admin_key: Path | None, minutes: int, node: str | None, subnet: str | None
) -> None:
    """Print a join token, with which one host enrolls itself: it expires, and can be used once.

    It is a secret: hand it over as a file, and use it there with `overlay network enroll --token FILE`.
    """
    from peers.stores.etcd.signatures import SigningKey

    network = open_network(location)
    show(
        network.make_token(
            load_admin_key(admin_key),
            SigningKey(os.urandom(32)),
            60 * minutes,
            None if node is None else read_name(node),
            None if subnet is None else read_subnet(subnet),
        )
    )
