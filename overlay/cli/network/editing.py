"""``overlay network edit``: the document of a network in an editor."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from overlay.cli.exits import Failure, Misuse
from overlay.cli.network.common import admin_key_option, load_admin_key, network_option, open_network
from overlay.cli.output import show

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores import Location


@click.command("edit", epilog="Example: overlay network edit --peers etcd://10.0.0.5:2379/office")
@network_option
@admin_key_option
def command(location: Location, admin_key: Path | None) -> None:
    """Open the document of a network in $EDITOR, and write it back if it is valid.

    It is a peers file with what does not join by itself: the network, static peers, services, and [leases].  A mistake
    is refused with its line, and can be edited again; a text that could not be written is kept in a file.
    """
    from peers.errors import StoreError, TableError

    network = open_network(location)
    before, modified, is_signed = network.read_text()
    signer = load_admin_key(admin_key) if is_signed else None
    text = before
    while True:
        edited = _edit(text)
        if edited is None or edited == before:
            show("nothing was changed")
            return
        text = edited
        try:
            network.write(text, modified, signer)
        except TableError as error:
            if sys.stdin.isatty() and click.confirm(
                f"Error: {error}\nEdit it again?", default=True, err=True
            ):
                continue
            raise Misuse(f"{error}\nyour text is kept in {_keep(text)}") from error
        except StoreError as error:
            raise Failure(f"{error}\nyour text is kept in {_keep(text)}") from error
        show(f"wrote {network.path}")
        return


def _edit(text: str) -> str | None:
    try:
        edited = click.edit(text, extension=".toml")
    except click.ClickException as error:
        raise Misuse(f"{error.message}; set EDITOR to the program that you edit with") from None
    return edited if edited is None or isinstance(edited, str) else str(edited)


def _keep(text: str) -> str:
    """Write *text* to a file that only this user can read, and return its name."""
    descriptor, name = tempfile.mkstemp(prefix="overlay-network-", suffix=".toml")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return name
