"""Callers of this node with a public key that no peer has: usually a peer whose key was mistyped at one end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlay.status import age
from overlay.wire.addresses import format_sockaddr
from peers.peer import format_public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.wire.addresses import Sockaddr

# Ours
MOST = 16  # keys; anyone who knows our public key can call with any number of them
WORTH_TELLING = 3  # calls of one key: a misconfigured peer calls again every few seconds


@dataclass(slots=True)
class Stranger:
    """A public key that no peer has, where it called from last, and how often."""

    public_key: bytes
    source: Sockaddr
    last_call: float
    calls: int = 1


class Strangers:
    """The MOST keys that called most often.

    A caller with a wrong key tries again every few seconds, so a flood of keys that call once displaces only itself.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, Stranger] = {}

    def note(self, public_key: bytes, source: Sockaddr, now: float) -> bool:
        """Record an initiation with *public_key* from *source*; return whether that makes the key worth reporting."""
        known = self._by_key.get(public_key)
        if known is not None:
            known.source, known.last_call, known.calls = source, now, known.calls + 1
            return known.calls == WORTH_TELLING
        if len(self._by_key) >= MOST:
            least = min(self._by_key.values(), key=lambda each: (each.calls, each.last_call))
            del self._by_key[least.public_key]
        self._by_key[public_key] = Stranger(public_key, source, now)
        return False

    def forget(self, public_keys: set[bytes]) -> None:
        """Forget the callers that have become peers."""
        for key in self._by_key.keys() & public_keys:
            del self._by_key[key]

    def describe(self, peers: Mapping[str, str], now: float) -> list[dict[str, Any]]:
        """Return the callers for ``overlay status``, the last one first.

        *peers* are names by underlay address: a stranger at a peer's address is probably that peer.
        """
        listed = sorted(self._by_key.values(), key=lambda each: -each.last_call)
        return [
            {
                "public_key": format_public_key(each.public_key),
                "endpoint": format_sockaddr(each.source),
                "calls": each.calls,
                "last_call": age(each.last_call, now),
                "peer": peers.get(each.source[0]),
            }
            for each in listed
        ]

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._by_key)
