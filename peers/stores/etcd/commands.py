"""The commands that sentences on a network name, as they can be pasted into a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.peer import format_public_key

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores.etcd.location import EtcdLocation


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands of the network at *location*, each in backquotes."""

    location: EtcdLocation

    def __call__(self, verb: str, *words: str) -> str:
        """Return ``overlay network`` *verb* for this network; *words* may be placeholders in capital letters."""
        return f"`{shlex.join(['overlay', 'network', verb, '--peers', str(self.location), *words])}`"

    def enroll(self, public_key: bytes, *words: str) -> str:
        """Return what vouches for *public_key*, where the administrator's key is."""
        return self("enroll", format_public_key(public_key), *words)

    def enroll_here(self, key_file: Path, name: str) -> str:
        """Return what uses a join token, on the host called *name* whose private key is in *key_file*."""
        return self("enroll", "--token", "FILE", "--key", str(key_file), "--node", name)


def accept(interface: str | None) -> str:
    """Return what has the agent of *interface*, None for the default one, follow an etcd of another history."""
    return f"`{shlex.join(['overlay', 'network', 'accept', *(['--interface', interface] if interface else [])])}`"
