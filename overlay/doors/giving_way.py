"""Which connection gives way if all places are taken: the one that has waited longest for its client."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class GaveWayError(Exception):
    """Another client needed the place of one that did nothing."""


class WaitingClients:
    """Connections that are waiting for their clients, to receive a request or to send an answer."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, None] = {}  # the one that has waited longest first

    @contextlib.contextmanager
    def for_client(self) -> Iterator[None]:
        """Let give_way() end the wait in the block, which then raises GaveWayError."""
        with trio.CancelScope() as scope:
            self._scopes[scope] = None
            try:
                yield
            finally:
                self._scopes.pop(scope, None)
        if scope.cancel_called:  # even if the client did something at the same moment: its place is promised
            raise GaveWayError

    def give_way(self) -> bool:
        """End the connection that has waited longest; return False if none is waiting."""
        scope = next(iter(self._scopes), None)
        if scope is None:
            return False
        del self._scopes[scope]
        scope.cancel()
        return True
