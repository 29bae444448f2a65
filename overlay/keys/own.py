"""The private key of this host while it is being replaced: the next key is in a file next to the one in use.

    /etc/overlay/private.key        in use; peers know its public key
    /etc/overlay/private.key.new    the next one, until every peer has learnt of it

`overlay rotate-key` makes the second, `--finish` gives it the name of the first in one step, `--abort` removes it.  So
at every moment, even after a crash, the files show whether the replacement has not begun, is under way, or is done.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from overlay import defaults
from overlay.errors import ConfigError, KeyFileError
from overlay.keys.files import load_own_key
from peers.errors import format_keys

if TYPE_CHECKING:
    from pathlib import Path

    from overlay.crypto.keys import PrivateKey
    from peers.peer import Peer
    from peers.table import Table

# Ours
SUFFIX = ".new"


def next_path(path: Path) -> Path:
    """Return the path of the successor of the key in *path*."""
    return path.parent / (path.name + SUFFIX)  # path may be "." or "/"


def load_next_key(path: Path, interface: str = defaults.INTERFACE) -> PrivateKey | None:
    """Return the successor of the key in *path*, of the agent of *interface*; None if there is none.

    Raises KeyFileError, whose remedy is to abort the replacement if the file is readable but has no key: making a key
    in its place would start a replacement that nobody requested.
    """
    if not path.name:
        return None
    following = next_path(path)
    try:
        key, _ = load_own_key(following)
    except KeyFileError as error:
        if os.path.isdir(following):
            raise KeyFileError(error.problem, "move it away") from None
        if os.access(following, os.R_OK):
            abort = command(path, interface, "--abort")
            raise KeyFileError(error.problem, f"remove the file with `{abort}`") from None
        raise
    return key


def command(key: Path, interface: str, *options: str) -> str:
    """Return the command of a replacement with *options*, in the form for this host."""
    words = ["overlay", "rotate-key", *options]
    if key.absolute() != defaults.KEY:
        words += ["--key", str(key.absolute())]
    if interface != defaults.INTERFACE:
        words += ["--interface", interface]
    return shlex.join(words)


def find_by_keys(table: Table, key: PrivateKey | None, following: PrivateKey | None) -> Peer | None:
    """Return the peer of *table* that has one of these keys of this host; None if none has.

    Raises ConfigError if two have.
    """
    found = [
        peer
        for each in (key, following)
        if each is not None and (peer := table.find_by_public_key(each.public)) is not None
    ]
    if len(found) == 2 and found[0] is not found[1]:
        names = [format_keys(("peers", peer.name)) for peer in found]
        raise ConfigError(
            f"{names[0]} and {names[1]} are both this host, whose key is being replaced: write the new public key "
            "into the section that has the old one"
        )
    return found[0] if found else None


class KeyFiles:
    """Whether the files of the host's keys differ from those at the last look."""

    def __init__(self, path: Path | None) -> None:
        """Look at the files of the key in *path*; None if the host has none."""
        self._paths = [path, next_path(path)] if path is not None and path.name else []
        self._seen = self._look()

    def changed(self) -> bool:
        """Return whether a file was added, removed or replaced since the last call."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> list[tuple[int, int] | None]:
        return [_signature(path) for path in self._paths]


def _signature(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns
