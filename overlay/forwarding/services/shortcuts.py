"""What the compiled twin remembers about virtual services, and when it must forget it.

It remembers flows by where their rows lie, and packets that a permit admits by their addresses and ports.  Any change
that would make Python decide otherwise is reported here first.  Flows of health checks have no rows: all of them share
one, of a flow that goes on whatever its packets say.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol

from overlay.services.states import State

if TYPE_CHECKING:
    from overlay.forwarding import state


class FlowMirror(Protocol):
    """The twin."""

    def remember_flow(
        self,
        key: bytes,
        seen: array[float],
        states: array[int],
        row: int,
        server: state.ServerState,
        /,
    ) -> None: ...
    def admit(self, peer: state.PeerState, key: bytes, /) -> None: ...
    def forget_flow(self, key: bytes, /) -> None: ...
    def forget_flows(self) -> None: ...
    def forget_admitted(self) -> None: ...


class Shortcuts:
    """The twin's memory of services; without a twin nothing is done."""

    def __init__(self) -> None:
        self.lane: FlowMirror | None = None
        self._seen, self._states = array("d", [0.0]), array("B", [State.UDP])

    def lead(self, key: bytes, server: state.ServerState) -> None:
        """Send the flow *key* to *server* whatever its packets say, until it is forgotten."""
        if self.lane is not None:
            self.lane.remember_flow(key, self._seen, self._states, 0, server)

    def admit(self, peer: state.PeerState, key: bytes) -> None:
        """Admit packets of the flow *key* from *peer*, until all admitted flows are forgotten."""
        if self.lane is not None:
            self.lane.admit(peer, key)

    def forget_flow(self, key: bytes) -> None:
        """Forget the flow *key*, so that it is looked up again."""
        if self.lane is not None:
            self.lane.forget_flow(key)

    def forget_flows(self) -> None:
        """Forget all flows, so that they are looked up again: the places of rows, the services, or their servers have
        changed.
        """
        if self.lane is not None:
            self.lane.forget_flows()

    def forget_admitted(self) -> None:
        """Forget all admitted flows, so that the permits are asked again."""
        if self.lane is not None:
            self.lane.forget_admitted()
