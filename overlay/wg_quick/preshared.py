"""Preshared keys of pairs, as files that peers name.

WireGuard has a preshared key for each pair of peers.  In a peers file a peer names a key, and if two peers name
different ones, the peer whose name sorts first decides (peers.peer.preshared_key_file_for).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Pair: TypeAlias = tuple[str, str]
"""Two peers by name, in the order of the names."""


def assign(wanted: Mapping[Pair, bytes | None]) -> dict[str, bytes]:
    """Return the key that each peer names, so that as many pairs as possible have the *wanted* key.

    A pair without a key wants None.  Pairs that are not in *wanted* do not matter.  If keys are those of spokes with a
    hub, or one for all, each pair gets what it wants; see misfits() for others.
    """
    found = [_assign(wanted, is_first=is_first) for is_first in (False, True)]
    return min(found, key=lambda keys: sum(1 for _ in misfits(wanted, keys)))


def misfits(wanted: Mapping[Pair, bytes | None], keys: Mapping[str, bytes]) -> Iterator[Pair]:
    """Yield the pairs that do not get the *wanted* key if peers name *keys*."""
    for (first, second), key in wanted.items():
        if (keys.get(first) or keys.get(second)) != key:
            yield first, second


def _assign(wanted: Mapping[Pair, bytes | None], *, is_first: bool) -> dict[str, bytes]:
    """Let peers with earlier names name no key if possible; with *is_first*, let them name their own if possible."""
    later: defaultdict[str, dict[str, bytes | None]] = defaultdict(dict)
    for (first, second), key in wanted.items():
        later[first][second] = key
    settled: dict[str, bytes | None] = {}
    for name in sorted(later):
        pairs = later[name]
        own = settled.get(name)
        if name not in settled:
            shared = next(iter(pairs.values()))
            can_share = all(key == shared for key in pairs.values())
            can_leave = all(settled.get(other, key) == key for other, key in pairs.items())
            own = shared if can_share and (is_first or not can_leave) else None
            settled[name] = own
        if own is None:
            for other, key in pairs.items():
                settled.setdefault(other, key)
    return {name: key for name, key in settled.items() if key is not None}
