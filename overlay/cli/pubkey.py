"""``overlay pubkey``: print the public key of a private key."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overlay.cli.options import key_option
from overlay.cli.output import show, warn

if TYPE_CHECKING:
    from overlay.crypto.keys import PrivateKey

STDIN = Path("-")
LINE_SIZE = 4096  # bytes; a key takes 44, and anything longer is refused


@click.command("pubkey", epilog="Example: wg genkey | overlay pubkey --key -")
@key_option("The file with the private key; - for stdin.")
def command(key: Path) -> None:
    """Print the public key of a private key."""
    from overlay.crypto.keys import encode_key
    from overlay.keys.files import load_private_key

    if key == STDIN:
        private = _read_stdin()
    else:
        private, warnings = load_private_key(key)
        for sentence in warnings:
            warn(sentence)
    show(encode_key(private.public))


def _read_stdin() -> PrivateKey:
    from overlay.crypto.keys import PrivateKey
    from overlay.errors import ConfigError

    text = sys.stdin.buffer.read(LINE_SIZE).decode("ascii", "replace")
    try:
        return PrivateKey.from_base64(text.strip())
    except ValueError as error:
        raise ConfigError(f"stdin does not contain a private key: {error}") from None
