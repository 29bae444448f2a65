"""The progress of replacing this node's key: which peers already know it by the next key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.keys.own import command
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overlay.config import Node
    from overlay.roster import Roster
    from overlay.session.sessions import Sessions

# Ours
NAMED = 5


@dataclass(frozen=True, slots=True)
class KeyProgress:
    """The encrypted peers by name: those whose last handshake used the *new* key, the *old* one, and those that are
    *silent*.
    """

    new: tuple[str, ...]
    old: tuple[str, ...]
    silent: tuple[str, ...]

    def describe(self, key: Path, interface: str) -> str:
        """Return a sentence for the status of the agent of *interface*, whose key in use is in the file *key*."""
        total = len(self.new) + len(self.old) + len(self.silent)
        told = f"the key of this host is being replaced: {len(self.new)} of {count(total, 'peer')} used the new one"
        if self.old:
            told += f", {some(self.old)} still {'uses' if len(self.old) == 1 else 'use'} the old one"
        if self.silent:
            told += (
                f", {some(self.silent)} {'was' if len(self.silent) == 1 else 'were'} not heard "
                "since this agent started"
            )
        if self.old or self.silent:
            return f"{told}; `{command(key, interface)}` shows what to do"
        return f"{told}; withdraw the old one with `{command(key, interface, '--finish')}`"


def standing(node: Node, roster: Roster, sessions: Sessions) -> KeyProgress | None:
    """Return the progress of replacing *node*'s key; None if it is not being replaced."""
    if node.next_key is None:
        return None
    found: dict[bytes | None, list[str]] = {}
    for remote in roster.by_number.values():
        if remote.encapsulation.is_encrypted:
            own_key = sessions.status(remote.number).own_key
            found.setdefault(own_key, []).append(remote.peer.name)
    new, silent = found.pop(node.next_key.public, []), found.pop(None, [])
    return KeyProgress(tuple(new), tuple(name for names in found.values() for name in names), tuple(silent))


def some(names: Sequence[str]) -> str:
    """Return the first of *names*, and the number of the others."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
