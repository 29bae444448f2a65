"""The 32-bit indices that address a node: one for each running handshake and each keypair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from overlay.wire.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Callable

Owner = TypeVar("Owner")

_INDEX_SIZE = 4
_MARK_SHIFT = 24
_UNMARKED = 2**_MARK_SHIFT - 1


class Indices(Generic[Owner]):
    """Who owns which index.  An index is random, so that it cannot be guessed, and unique within the node.

    If given, *mark* is the highest byte of each, by which the kernel can recognize most messages that belong to none of
    our sessions.  The lowest bits say in which of LANES groups the peer is: by them the kernel chooses the lane that
    receives its messages (`overlay.host.sockets.reuseport`), which stays the same when a peer gets a new session.
    Indices that differ from one in use only in these bits are reserved for the lanes of its session
    (`overlay.wire.lanes`).
    """

    __slots__ = ("_entropy", "_mark", "_owners")

    def __init__(self, entropy: Callable[[int], bytes], mark: int | None = None) -> None:
        self._entropy, self._mark = entropy, mark
        self._owners: dict[int, tuple[int, Owner]] = {}  # without the lowest bits

    def draw(self, peer: int) -> int:
        """Return a free index for a session with the peer of this number.  It stays free until claim()."""
        while True:
            index = int.from_bytes(self._entropy(_INDEX_SIZE), "little") & ~(LANES - 1) | peer % LANES
            if self._mark is not None:
                index = index & _UNMARKED | self._mark << _MARK_SHIFT
            if index // LANES not in self._owners:
                return index

    def claim(self, index: int, owner: Owner) -> None:
        """Make *owner* the owner of *index*, which draw() returned."""
        assert index // LANES not in self._owners
        self._owners[index // LANES] = index, owner

    def owner(self, index: int) -> Owner | None:
        """Return the owner of *index*; None if it is free."""
        claimed, owner = self._owners.get(index // LANES, (None, None))
        return owner if claimed == index else None

    def free(self, index: int) -> None:
        """Let *index* be drawn again."""
        assert self.owner(index) is not None
        del self._owners[index // LANES]

    def __len__(self) -> int:
        """Return how many are in use."""
        return len(self._owners)
