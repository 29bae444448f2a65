"""Changes that `wg` made to a node, as values: they are kept apart from the peers file, and merged with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.crypto.keys import PresharedKey, PrivateKey
    from peers.peer import Peer
    from peers.table import Table

V = TypeVar("V")

# Ours
NAMED = 5  # peers in a sentence


@dataclass(frozen=True, slots=True)
class Replaced(Generic[V]):
    """A value of the node that `wg` changed: *now* in place of *filed*, the one in the peers file."""

    filed: object
    now: V


@dataclass(frozen=True, slots=True)
class Amended:
    """A peer that differs from the peers file; *filed* is None if it is not there, *peer* is None if it was removed.

    *preshared_key* None is that of the file.
    """

    filed: Peer | None
    peer: Peer | None
    preshared_key: PresharedKey | None = None


@dataclass(frozen=True, slots=True)
class Amendments:
    """All changes by `wg` that still apply.  None means that a value of the node is as in the peers file.

    *peers* are by public key.  If *private_key* was removed, no peer that needs a key is in the table.
    """

    peers: Mapping[bytes, Amended] = field(default_factory=dict)
    private_key: Replaced[PrivateKey | None] | None = None
    listen_port: Replaced[int] | None = None
    fwmark: Replaced[int | None] | None = None

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.peers) or any(
            each is not None for each in (self.private_key, self.listen_port, self.fwmark)
        )


NOTHING = Amendments()


@dataclass(frozen=True, slots=True)
class Filed:
    """The peers file: its *table*, which peer this node is, its key, and the *preshared_keys* by peer name."""

    table: Table
    own: Peer
    private_key: PrivateKey
    preshared_keys: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Merged:
    """A table in which *amendments*, those that apply, are in force.

    *peers* are the others whose tunnels speak WireGuard, by public key, including those that are not in the table
    because they wait for a private key.  *private_key* is None as long as there is none.
    """

    table: Table
    own: Peer
    private_key: PrivateKey | None
    preshared_keys: Mapping[str, bytes] = field(repr=False)
    peers: Mapping[bytes, Peer]
    amendments: Amendments

    @property
    def waiting(self) -> tuple[Peer, ...]:
        """The peers that wait for a private key."""
        return () if self.private_key is not None else tuple(self.peers.values())

    def describe(self) -> str | None:
        """Return a sentence on the differences from the peers file; None if there are none."""
        found, amendments = [], self.amendments
        for verb, peers in (
            ("changed", [each.peer for each in amendments.peers.values() if each.filed and each.peer]),
            ("added", [each.peer for each in amendments.peers.values() if not each.filed]),
            ("removed", [each.filed for each in amendments.peers.values() if not each.peer]),
        ):
            names = sorted(each.name for each in peers if each is not None)
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                found.append(f"{verb} {', '.join(names[:NAMED])}{more}")
        key = amendments.private_key
        if key is not None and key.now is None:
            found.append("removed the private key")
        values = {
            "the private key": key if key is not None and key.now is not None else None,
            "the listen port": amendments.listen_port,
            "the mark": amendments.fwmark,
        }
        if changed := [name for name, value in values.items() if value is not None]:
            found.append(f"changed {' and '.join(changed)}")
        if not found:
            return None
        return f"wg {'; '.join(found)}: this holds until the peers file changes it, or the agent ends"
