"""``overlay export``: the wg-quick file of one peer, for a phone or a router that runs plain WireGuard."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import FILE, peers_option
from overlay.cli.output import show, show_secret, suggest, warn
from overlay.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from overlay.crypto.keys import PresharedKey, PrivateKey
    from overlay.wg_quick.conf import Conf
    from peers.addresses import Address
    from peers.peer import Peer
    from peers.stores import Location
    from peers.table import Table

# Specification
QR_SIZE = 2953  # bytes that a QR code of version 40 holds (ISO/IEC 18004)


def _complete_name(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the peers of the peers file that begin with *incomplete*; none for a store that needs the network."""
    from peers.errors import StoreError, TableError
    from peers.stores import FILE as PEERS_FILE

    peers: Location | None = ctx.params.get("peers")
    if peers is None or peers.store != PEERS_FILE:
        return []
    try:
        names = peers.open().load().peers
    except (StoreError, TableError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(
    "export", epilog="Example: overlay export phone --peers /etc/overlay/peers.toml --new-key --qr"
)
@click.argument("name", shell_complete=_complete_name)
@peers_option
@click.option(
    "--key", type=FILE, metavar="FILE", help="The private key of NAME, which is written into the file."
)
@click.option(
    "--new-key",
    is_flag=True,
    help="Make a private key for NAME.  It is shown only once, and not stored.",
)
@click.option("--qr", is_flag=True, help="Print a QR code for the WireGuard apps of phones.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="With --new-key, for a NAME that is not in the peers file yet: its address on the overlay.",
)
def command(
    name: str,
    peers: Location,
    key: Path | None,
    new_key: bool,
    qr: bool,
    addresses: tuple[str, ...],
) -> None:
    """Print the wg-quick file of the peer NAME, for a device that runs plain WireGuard.

    Without --key and --new-key the file has no private key: the device has its own.  What the file cannot express is
    named on stderr.
    """
    from overlay.crypto.keys import PrivateKey
    from overlay.keys.files import load_private_key
    from overlay.wg_quick.exporting import CannotExportError, describe_losses, export

    if key is not None and new_key:
        raise Misuse("--key and --new-key cannot be combined: name the key of the peer, or have one made")
    table = peers.open().load()
    private: PrivateKey | None = None
    if new_key:
        private = PrivateKey.generate(os.urandom)
    elif key is not None:
        private, sentences = load_private_key(key)
        for sentence in sentences:
            warn(sentence)
    is_new = name not in table.peers
    table = _with_key(table, name, peers, private, addresses, new_key=new_key)
    own = table.peers[name]
    try:
        conf = export(table, own, private, _preshared_keys(table, own))
    except CannotExportError as error:
        raise Misuse(f"{name} in {peers} cannot be exported: {error}") from error
    losses = list(describe_losses(table, own))
    if qr:
        show(_code(conf))
    else:
        has_secret = private is not None or any(each.preshared_key for each in conf.others)
        (show_secret if has_secret else show)(conf.build().removesuffix("\n"))
    for sentence in losses:
        warn(sentence)
    if new_key:
        assert private is not None
        _tell_new_key(own, peers, is_new=is_new)
    elif private is None:
        warn(
            f"this file has no PrivateKey, because the key of {name} is not here: add it on the device, name its file "
            f"with "
            "--key, or make a new one with --new-key"
        )


def _with_key(
    table: Table,
    name: str,
    peers: Location,
    private: PrivateKey | None,
    addresses: tuple[str, ...],
    *,
    new_key: bool,
) -> Table:
    """Return *table* with the public half of *private* as the public key of *name*.  Raises Misuse."""
    from peers.peer import PEER_NAME, Peer
    from peers.table import Table

    peer = table.peers.get(name)
    if peer is not None and addresses:
        raise Misuse(f"--address: {name} is in {peers} already, with its address; leave the option out")
    if peer is None:
        if not new_key or not addresses:
            hint = suggest(name, list(table.peers))
            raise Misuse(
                f"{peers} has no peer {printable(name)}; {hint} (for a new one, give --new-key and --address)"
            )
        if PEER_NAME.fullmatch(name) is None:
            raise Misuse(
                f"{printable(name)!r} is not the name of a peer; write 1 to 63 letters, digits, dots, "
                "hyphens or underscores"
            )
        peer = Peer(name, None, addresses=_parse_addresses(addresses))
    if private is None:
        return table
    if not new_key and private.public != peer.public_key:
        raise Misuse(
            f"--key is not the key of {name}: {peers} has another public_key for it; name the right file"
        )
    from peers.errors import KeyProblem

    try:
        return Table(
            table.network, {**table.peers, name: replace(peer, public_key=private.public)}, table.sections
        )
    except KeyProblem as error:
        raise Misuse(f"{name} does not fit into {peers}: {error}") from error


def _parse_addresses(texts: tuple[str, ...]) -> tuple[Address, ...]:
    from peers.addresses import parse_host_address

    found = []
    for text in texts:
        try:
            found.append(parse_host_address(text))
        except ValueError as error:
            raise Misuse(f"--address {printable(text)} {error}") from None
    if len({address.version for address in found}) < len(found):
        raise Misuse("--address: a peer has one address of each family; write one for IPv4 and one for IPv6")
    return tuple(found)


def _preshared_keys(table: Table, own: Peer) -> dict[str, PresharedKey]:
    """Return the keys that *own* shares with other peers, by peer.  Raises KeyFileError."""
    from overlay.keys.files import load_preshared_key
    from peers.peer import preshared_key_file_for

    loaded: dict[Path, PresharedKey] = {}
    found = {}
    for name, peer in table.peers.items():
        path = None if peer is own else preshared_key_file_for(own, peer)
        if path is not None:
            if path not in loaded:
                loaded[path] = load_preshared_key(path)
            found[name] = loaded[path]
    return found


def _code(conf: Conf) -> str:
    """Return *conf* as a QR code in block elements.  Raises Failure."""
    from overlay.wg_quick.exporting import without_names

    try:
        import segno
    except ImportError:
        raise Failure("--qr needs the Python package segno; install it with `pip install segno`") from None
    text = without_names(conf).build()
    if len(text) > QR_SIZE:
        raise Failure(
            f"the file has {len(text)} bytes, and a QR code holds {QR_SIZE}; "
            "leave out --qr and copy the file to the device"
        )
    output = io.StringIO()
    segno.make(text, error="l", micro=False, mode="byte").terminal(output, compact=True)
    return output.getvalue().rstrip("\n")


def _tell_new_key(own: Peer, peers: Location, *, is_new: bool) -> None:
    """Print on stderr what the peers file must contain."""
    from peers.peer import format_public_key

    assert own.public_key is not None
    public = format_public_key(own.public_key)
    if is_new:
        from overlay.importing.toml_text import format_table

        section = format_table(
            ("peers", own.name), (("public_key", public), ("address", tuple(map(str, own.addresses))))
        )
        click.echo(f"Append this to {peers} on every host:\n\n{section}", err=True)
        return
    click.echo(
        f"{own.name} has a new key, shown only this once: "
        f'write public_key = "{public}" into peers.{own.name} of {peers} on every '
        "host",
        err=True,
    )
