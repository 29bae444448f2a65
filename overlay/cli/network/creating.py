"""``overlay network create``: make a network in etcd."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from overlay.cli.network.common import ADMIN_KEY, network_option, open_network, read_signing_key
from overlay.cli.options import FILE
from overlay.cli.output import show

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores import Location
    from peers.stores.etcd.signatures import SigningKey


@click.command(
    "create",
    epilog="Example: overlay network create --peers etcd://10.0.0.5:2379/office --prefix 10.244.0.0/16",
)
@network_option
@click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    required=True,
    metavar="PREFIX",
    help="A prefix that the overlay carries; one for each address family.",
)
@click.option("--length", type=int, metavar="N", help="The length of each host's IPv4 subnet; by default 24.")
@click.option(
    "--length6", type=int, metavar="N", help="The length of each host's IPv6 subnet; by default 64."
)
@click.option(
    "--seconds", type=int, metavar="N", help="How long a silent host keeps its subnet; by default 60."
)
@click.option(
    "--sign", is_flag=True, help="Vouch for the document and for each host with the administrator's key."
)
@click.option(
    "--admin-key",
    type=FILE,
    default=ADMIN_KEY,
    metavar="FILE",
    help="With --sign: the administrator's private key, which is created if it does not exist.",
)
def command(
    location: Location,
    prefixes: tuple[str, ...],
    length: int | None,
    length6: int | None,
    seconds: int | None,
    sign: bool,
    admin_key: Path,
) -> None:
    """Make a network in etcd, which hosts then join by themselves.

    With --sign, agents whose URL names the administrator's public key take only hosts that it vouches for: see
    `overlay network enroll` and `join-token`.  The private key stays on this machine.
    """
    network = open_network(location)
    listed = ", ".join(f'"{prefix}"' for prefix in prefixes)
    lines = ["[network]", f"prefix = [{listed}]"]
    said = [
        (name, value)
        for name, value in (("length", length), ("length6", length6), ("seconds", seconds))
        if value is not None
    ]
    if said:
        lines += ["", "[leases]", *(f"{name} = {value}" for name, value in said)]
    signer = _signer(admin_key) if sign else None
    network.create("\n".join(lines) + "\n", signer)
    url = str(network.location)
    if signer is not None:
        import base64

        public = base64.b64encode(signer.public).decode()
        show(f"the administrator's public key is {public}, its private key is in {admin_key}")
        url += f"{'&' if '?' in url else '?'}admin-key={public}"
    show(
        f"a host joins with `overlay up --peers '{url}'`"
        if "&" in url or "?" in url
        else f"a host joins with `overlay up --peers {url}`"
    )


def _signer(path: Path) -> SigningKey:
    from overlay.cli.keyfiles import write_secret
    from peers.stores.etcd.signatures import SigningKey

    if path.exists():
        return read_signing_key(path)
    made = SigningKey(os.urandom(32))
    write_secret(path, made.format() + "\n")
    return made
