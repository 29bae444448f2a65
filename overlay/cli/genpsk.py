"""``overlay genpsk``: make a preshared key."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from overlay.cli.exits import Misuse
from overlay.cli.keyfiles import write_secret
from overlay.cli.options import FILE
from overlay.cli.output import show_secret

if TYPE_CHECKING:
    from pathlib import Path


@click.command("genpsk", epilog="Example: overlay genpsk --out /etc/overlay/tokyo.psk")
@click.option(
    "--out",
    type=FILE,
    metavar="FILE",
    help="Write the key to this file, readable by its owner only, and print nothing.",
)
def command(out: Path | None) -> None:
    """Make a preshared key and print it.

    It protects the tunnels of a peer in addition to the key pairs: name its file as preshared_key_file in the peers
    file and copy it to every host that talks with that peer.
    """
    from overlay.crypto.keys import PresharedKey

    text = PresharedKey.generate(os.urandom).to_base64()
    if out is None:
        show_secret(text)
        return
    try:
        write_secret(out, text + "\n")
    except FileExistsError:
        is_removed = "" if out.is_dir() or out.is_block_device() or out.is_char_device() else "remove it, or "
        raise Misuse(f"{out} already exists: {is_removed}name another file with --out") from None
