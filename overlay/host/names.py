"""The last known addresses of names, kept over a restart of the agent.

At the start there may be no name server: it may be behind the tunnel to the named peer itself, or start late at boot.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Ours
SUFFIX = ".names"  # next to the control socket
LARGEST = 4 * 1024 * 1024  # bytes; fifty thousand names
ADDRESSES = 16  # of one name


class Names:
    """The addresses of known names, in memory and in a file."""

    def __init__(self, path: Path | None) -> None:
        """Read the valid entries in *path* if only this user can have written it; None for no file."""
        self._path = path
        self._known = {} if path is None else _read(path)
        self._is_new = False

    def find(self, host: str) -> tuple[str, ...]:
        """Return the addresses of *host*, the best first; none if the name is not known."""
        return self._known.get(host, ())

    def remember(self, host: str, addresses: tuple[str, ...]) -> None:
        """Record *addresses* as those of *host*; save() writes them."""
        if addresses and self._known.get(host) != addresses[:ADDRESSES]:
            self._known[host] = addresses[:ADDRESSES]
            self._is_new = True

    def keep(self, hosts: set[str]) -> None:
        """Forget all names but *hosts*."""
        known = {host: found for host, found in self._known.items() if host in hosts}
        self._is_new |= len(known) != len(self._known)
        self._known = known

    def save(self) -> None:
        """Write new addresses.  A file that cannot be written only costs a look-up after the next start."""
        if not self._is_new or self._path is None:
            return
        self._is_new = False
        fresh = self._path.with_suffix(".names-new")
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(self._known, file)
            fresh.rename(self._path)


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            is_ours = about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISREG(about.st_mode) or not is_ours:
                return {}
            text = file.read(LARGEST + 1)
        found = json.loads(text) if len(text) <= LARGEST else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {host: sound for host, addresses in found.items() if (sound := _sound(addresses))}


def _sound(addresses: object) -> tuple[str, ...]:
    """Return the valid ones of *addresses* that have no scope: interfaces have other numbers after a restart."""
    if not isinstance(addresses, list):
        return ()
    sound = []
    for each in addresses[:ADDRESSES]:
        with contextlib.suppress(ValueError):
            if isinstance(each, str) and not ip_address(each).is_link_local:
                sound.append(str(ip_address(each)))
    return tuple(sound)
