"""The keypairs of all peers by their index, which messages name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer


class IndexMirror(Protocol):
    """A further place where they are kept."""

    def list(self, keypair: Keypair[LivePeer], /) -> None: ...
    def unlist(self, keypair: Keypair[LivePeer], /) -> None: ...


class ReceiverIndices(dict[int, "Keypair[LivePeer]"]):
    """A dictionary that keeps a lane of the compiled twin up to date, if there is one."""

    lane: IndexMirror | None = None

    def __setitem__(self, index: int, keypair: Keypair[LivePeer]) -> None:
        super().__setitem__(index, keypair)
        if self.lane is not None:
            self.lane.list(keypair)

    def __delitem__(self, index: int) -> None:
        if self.lane is not None:
            self.lane.unlist(self[index])
        super().__delitem__(index)
