"""``overlay keygen``: make the private key of this host."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from overlay.cli.exits import Misuse
from overlay.cli.keyfiles import write_secret
from overlay.cli.options import key_option
from overlay.cli.output import show

if TYPE_CHECKING:
    from pathlib import Path


@click.command("keygen", epilog="Example: overlay keygen --key paris.key")
@key_option("Where to write the private key, readable by its owner only.")
@click.option(
    "--force", is_flag=True, help="Replace an existing key; the other hosts then need the new public key."
)
def command(key: Path, force: bool) -> None:
    """Make a private key for this host and print its public key.

    The public key goes into the peers file as public_key; the private key never leaves this host.
    """
    from overlay.crypto.keys import PrivateKey, encode_key

    private = PrivateKey.generate(os.urandom)
    try:
        write_secret(key, private.to_base64() + "\n", replace=force)
    except FileExistsError:
        raise Misuse(_describe_other(key)) from None
    show(encode_key(private.public))


def _describe_other(path: Path) -> str:
    """Return a sentence about the file in the place of the new key."""
    from overlay.errors import KeyFileError
    from overlay.keys.files import load_private_key

    try:
        load_private_key(path)
    except KeyFileError as error:
        return str(error)  # including the remedy
    is_replaced = (
        "replace it with --force" if not path.is_symlink() else "remove that link and create it again"
    )
    return (
        f"{path} already exists: print its public key with `overlay pubkey --key {shlex.quote(str(path))}`, "
        f"or {is_replaced}"
    )
