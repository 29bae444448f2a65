"""The common part of the commands of a network: its URL, and the administrator's key."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overlay.cli.exits import Misuse
from overlay.cli.options import FILE, PeersLocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.addresses import Prefix
    from peers.stores import Location
    from peers.stores.etcd.administration import Administration
    from peers.stores.etcd.signatures import SigningKey

Command = TypeVar("Command", bound="Callable[..., Any]")

# Ours
ADMIN_KEY = Path("/etc/overlay/admin.key")
KEY_FILE_SIZE = 4096


def network_option(command: Command) -> Command:
    """Give *command* ``--peers``, a network in etcd."""
    return click.option(
        "--peers",
        "location",
        type=PeersLocation(readable=False),
        required=True,
        metavar="URL",
        help="The network, as etcd://HOST:2379/NAME.",
    )(command)


def admin_key_option(command: Command) -> Command:
    """Give *command* ``--admin-key``."""
    return click.option(
        "--admin-key",
        type=FILE,
        metavar="FILE",
        help=f"The administrator's private key, for a network that is signed; by default {ADMIN_KEY}, if it exists.",
    )(command)


def open_network(location: Location) -> Administration:
    """Return the Administration of the network at *location*.  Raises Misuse for another store."""
    if location.store.startswith("flannel+"):
        raise Misuse(
            f"--peers {location}: this is flannel's network; write its config and leases with `etcdctl put` and `del`"
        )
    if location.store not in {"etcd", "etcds"}:
        raise Misuse(f"--peers {location}: this is not a network in etcd; write etcd://HOST:2379/NAME")
    from peers.stores.etcd.administration import Administration
    from peers.stores.etcd.location import EtcdLocation

    return Administration(EtcdLocation.parse(location.store, location.place, ("admin-key",)))


def load_admin_key(path: Path | None) -> SigningKey | None:
    """Return the key in *path*, or in the default file if that exists.  Raises Misuse."""
    if path is None and not ADMIN_KEY.exists():
        return None
    return read_signing_key(path or ADMIN_KEY)


def read_signing_key(path: Path) -> SigningKey:
    """Return the administrator's key in the file *path*.  Raises Misuse."""
    from peers.stores.etcd.signatures import SigningKey

    try:
        return SigningKey.parse(read_secret(path))
    except ValueError:
        raise Misuse(
            f"{path} has no administrator's key; name the file that `overlay network create --sign` has written"
        ) from None


def read_secret(path: Path) -> str:
    """Return the text in a file with a secret.  Raises Misuse."""
    from peers.files import UnfitFileError, read_regular

    try:
        return read_regular(path, KEY_FILE_SIZE)[0].decode("ascii")
    except UnfitFileError as error:
        raise Misuse(f"{path} {error}; name another") from None
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}; name another") from None
    except ValueError:
        raise Misuse(f"{path} has no key: it is not ASCII; name another") from None


def read_public_key(text: str) -> bytes:
    """Return the public key of a node.  Raises Misuse."""
    from peers.peer import parse_public_key

    try:
        return parse_public_key(text)
    except ValueError as error:
        raise Misuse(f"the public key {error}") from None


def read_subnet(text: str) -> Prefix:
    """Return a subnet.  Raises Misuse."""
    from peers.addresses import parse_prefix

    try:
        return parse_prefix(text)
    except ValueError as error:
        raise Misuse(f"{text!r} {error}") from None


def read_name(text: str) -> str:
    """Return the name of a node.  Raises Misuse."""
    from peers.peer import PEER_NAME

    if not PEER_NAME.fullmatch(text):
        raise Misuse(
            f"{text!r} is not a peer name; write 1 to 63 letters, digits, dots, hyphens or underscores"
        )
    return text
