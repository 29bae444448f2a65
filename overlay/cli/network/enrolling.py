"""``overlay network enroll``: enroll a host, or let it enroll itself with a join token."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import click

from overlay.cli.exits import Misuse
from overlay.cli.network.common import (
    admin_key_option,
    load_admin_key,
    network_option,
    open_network,
    read_name,
    read_public_key,
    read_secret,
    read_subnet,
)
from overlay.cli.options import FILE, key_option
from overlay.cli.output import show

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores import Location


@click.command(
    "enroll",
    epilog="Example: overlay network enroll --peers etcd://10.0.0.5:2379/office PUBLIC_KEY --node paris",
)
@network_option
@click.argument("public_key", required=False)
@click.option(
    "--node", metavar="NAME", help="Enroll it only under this name; with --token, the name of this host."
)
@click.option("--subnet", metavar="SUBNET", help="Enroll it only with this subnet.")
@admin_key_option
@click.option(
    "--token",
    type=FILE,
    metavar="FILE",
    help="On the host itself: the file with its join token; - for standard input.",
)
@key_option("With --token: the private key of this host.")
def command(
    location: Location,
    public_key: str | None,
    node: str | None,
    subnet: str | None,
    admin_key: Path | None,
    token: Path | None,
    key: Path,
) -> None:
    """Vouch for a host in a signed network.

    On the administrator's machine: with the public key that `overlay keygen` printed there.  On the host itself: with a
    join token from `overlay network join-token`, which can be used once.
    """
    network = open_network(location)
    name = None if node is None else read_name(node)
    if token is not None:
        if public_key is not None or subnet is not None:
            raise Misuse(
                "a join token is for this host, whose key and subnet are known; remove the other arguments"
            )
        from overlay.keys.files import load_private_key
        from peers.stores.etcd.signatures import JoinToken

        text = sys.stdin.read(1000) if str(token) == "-" else read_secret(token)
        try:
            signer = JoinToken.read_key(text)
        except ValueError as error:
            raise Misuse(f"the content of {token} {error}") from None
        own, _ = load_private_key(key)
        network.join(signer, own.public, name or socket.gethostname())
        show(f"this host is enrolled in {network.keys.name}")
        return
    if public_key is None:
        raise Misuse("name the public key of the host, or its join token with --token FILE")
    found = read_public_key(public_key)
    network.enroll(load_admin_key(admin_key), found, name, None if subnet is None else read_subnet(subnet))
    show(f"{public_key} is enrolled in {network.keys.name}")
