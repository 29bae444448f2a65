"""Files with a private or preshared key: how they are read, and what to do if that fails.

A remedy must work when it is followed, so it depends on what is at the path now.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.crypto.keys import PresharedKey, PrivateKey
from overlay.errors import KeyFileError
from overlay.host import advice
from overlay.keys.permissions import describe_readers
from peers.files import UnfitFileError, read_regular

if TYPE_CHECKING:
    from pathlib import Path

# Ours
KEY_FILE_SIZE = 4096  # bytes; a key has 44


@dataclass(frozen=True, slots=True)
class KeyFileKind:
    """The purpose of a file: *make* is the command that makes one, *elsewhere* how to name another file instead."""

    name: str
    make: str
    force: str  # what makes *make* replace a regular file; empty if nothing does
    elsewhere: str
    also: str = ""  # another way to get a key


PRIVATE = KeyFileKind("private key", "overlay keygen --key", " --force", "name another file with --key")
PRESHARED = KeyFileKind(
    "preshared key",
    "overlay genpsk --out",
    "",
    "name another file as preshared_key_file in the peers file",
    ", or copy it from another host",
)


def load_own_key(path: Path) -> tuple[PrivateKey | None, list[str]]:
    """Return the key in *path*, None if there is no such file, and warnings."""
    return load_private_key(path) if os.path.exists(path) else (None, [])  # Path.exists() may raise


def load_private_key(path: Path) -> tuple[PrivateKey, list[str]]:
    """Return the key in *path*, and warnings.  Raises KeyFileError."""
    text, mode = _read_secret(path, PRIVATE)
    try:
        key = PrivateKey.from_base64(text.strip())
    except ValueError as error:
        raise KeyFileError(f"{path} is not a private key: {error}", replace_key(path, PRIVATE)) from None
    return key, list(map(str, describe_readers(path, mode)))


def load_preshared_key(path: Path) -> PresharedKey:
    """Return the key in *path*.  Raises KeyFileError."""
    text, _ = _read_secret(path, PRESHARED)
    try:
        return PresharedKey.from_base64(text.strip())
    except ValueError as error:
        raise KeyFileError(f"{path} is not a preshared key: {error}", replace_key(path, PRESHARED)) from None


def replace_key(path: Path, kind: KeyFileKind) -> str:
    """Return how to put a key at *path*, as the end of a sentence."""
    make = f"`{kind.make} {shlex.quote(str(path))}`"
    try:
        found = os.lstat(path).st_mode
    except (OSError, ValueError):
        return kind.elsewhere
    if stat.S_ISREG(found) and kind.force:
        return f"{kind.elsewhere}, or replace it with {make[:-1]}{kind.force}`"
    if stat.S_ISREG(found) or stat.S_ISLNK(found) or stat.S_ISFIFO(found) or stat.S_ISSOCK(found):
        return f"{kind.elsewhere}, or remove it and make one with {make}{kind.also}"
    return kind.elsewhere  # the remedy is never to remove a directory or a device


def _read_secret(path: Path, kind: KeyFileKind) -> tuple[str, int]:
    """Return the text in *path* and the file's mode.  Raises KeyFileError."""
    try:
        data, status = read_regular(path, KEY_FILE_SIZE)
        text = data.decode().removeprefix("\ufeff")  # some editors put a byte order mark before UTF-8
        text.encode("ascii")
    except UnfitFileError as error:
        raise KeyFileError(f"{path} {error}", replace_key(path, kind)) from None
    except FileNotFoundError:
        raise _absence(path, kind) from None
    except IsADirectoryError:
        raise KeyFileError(f"{path} is a directory", kind.elsewhere) from None
    except ValueError:  # not ASCII, or a null character in the path
        raise KeyFileError(
            f"{path} is not a file with a key: it contains characters that are not base64",
            replace_key(path, kind),
        ) from None
    except PermissionError:
        raise KeyFileError(
            f"{path} cannot be read: permission denied", f"{advice.become_root()}, or {kind.elsewhere}"
        ) from None
    except OSError as error:
        remedy = advice.after(error) if error.errno in advice.SHORTAGES else kind.elsewhere
        raise KeyFileError(f"{path} cannot be read: {error.strerror}", remedy) from None
    return text, status.st_mode


def _absence(path: Path, kind: KeyFileKind) -> KeyFileError:
    if path.is_symlink():
        return KeyFileError(f"{path} is a link to a file that does not exist", replace_key(path, kind))
    return KeyFileError(
        f"{path} does not exist", f"make one with `{kind.make} {shlex.quote(str(path))}`{kind.also}"
    )
