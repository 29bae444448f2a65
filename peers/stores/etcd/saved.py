"""The last known keys of a network on disk, for a host that starts while etcd is away.

The file is for its owner alone, written whole or not at all, and read like anything from outside.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.addresses import parse_prefix
from peers.files import UnfitFileError, read_regular
from peers.stores.etcd.messages import KeyValue

if TYPE_CHECKING:
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.stores.membership import OwnKeys

# Ours
FILE_SIZE = 64 * 1024 * 1024
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """What was known: the keys at a revision of a cluster, and this host's subnets."""

    cluster: int
    revision: int
    kvs: tuple[KeyValue, ...]
    subnets: tuple[Prefix, ...]
    serial: int = 0


class Files:
    """Where a host keeps what it knows of one network: in *directory*, by a *stem* and its public key.

    While its key is being replaced that is a file for each key, so that it finds one whichever is left to it.
    """

    def __init__(self, directory: Path, stem: str) -> None:
        self._directory, self._stem = directory, stem
        self.found: tuple[Saved, float] | None = None
        """What read() returned last."""

    def of(self, keys: OwnKeys) -> tuple[Path, ...]:
        """Return the files of the host of *keys*."""
        return tuple(self._directory / f"{self._stem}-{key[:8].hex()}.json" for key in keys)

    def read(self, keys: OwnKeys) -> tuple[Saved, float] | None:
        """Return what is in the first of its files that is of use, and when that was last known to be true."""
        self.found = next((found for path in self.of(keys) if (found := read(path)) is not None), None)
        return self.found


def write(path: Path, saved: Saved) -> None:
    """Put *saved* into the file *path*, mode 0600, in one step.  Raises OSError."""
    rows = [
        [_encode(kv.key), _encode(kv.value), kv.created, kv.modified, kv.version, kv.lease]
        for kv in saved.kvs
    ]
    text = json.dumps(
        {
            "format": FORMAT,
            "cluster": saved.cluster,
            "revision": saved.revision,
            "serial": saved.serial,
            "subnets": [str(subnet) for subnet in saved.subnets],
            "keys": rows,
        }
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def read(path: Path) -> tuple[Saved, float] | None:
    """Return what is in *path*, and when it was last known to be true (seconds since 1970); None if it is of no use."""
    try:
        data, status = read_regular(path, FILE_SIZE)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        return _parse(data), status.st_mtime
    except (OSError, UnfitFileError, ValueError, KeyError, TypeError, RecursionError):
        return None


def confirm(path: Path) -> None:
    """Note that what is in *path* is still true."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _parse(data: bytes) -> Saved:
    found = json.loads(data)
    if found["format"] != FORMAT:
        raise ValueError("another format")
    numbers = (found["cluster"], found["revision"], found["serial"])
    kvs = tuple(
        KeyValue(_decode(key), _decode(value), *map(_number, rest)) for key, value, *rest in found["keys"]
    )
    cluster, revision, serial = map(_number, numbers)
    return Saved(cluster, revision, kvs, tuple(map(parse_prefix, found["subnets"])), serial)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a number")
    return value


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
