"""``overlay network import``: a peers file as the document of a network."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.network.common import admin_key_option, load_admin_key, network_option, open_network
from overlay.cli.options import FILE
from overlay.cli.output import show

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores import Location


@click.command(
    "import", epilog="Example: overlay network import --peers etcd://10.0.0.5:2379/office peers.toml"
)
@network_option
@click.argument("file", type=FILE, metavar="PEERS_TOML")
@admin_key_option
def command(location: Location, file: Path, admin_key: Path | None) -> None:
    """Write a peers file into etcd as the document of a network, in place of the present one.

    Hosts that the file lists remain these peers, and do not join in another way.  The file may have [leases].  Files
    with preshared keys must be named by absolute paths.
    """
    from peers import toml

    network = open_network(location)
    text = toml.read(file)
    _, modified, is_signed = network.read_text()
    network.write(text, modified, load_admin_key(admin_key) if is_signed else None)
    show(f"wrote {network.path}")
