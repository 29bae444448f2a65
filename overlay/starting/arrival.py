"""A node that is identified by an address of its host, which may appear later than the agent."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

from overlay.errors import NotHereError, OverlayError
from peers.errors import PeersError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from overlay.config import Node
    from overlay.starting.waiting import WaitingAgent

# Ours
ADDRESS = "an address of this host"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0  # seconds between two attempts; each reads the peers file


async def wait_until_here(settle: Callable[[], Node], waiting: WaitingAgent) -> Node | None:
    """Return the result of *settle* once it knows who this node is; None if a signal says to stop.

    Other errors are raised.  SIGHUP triggers an attempt at once.  *waiting* answers questions meanwhile.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        try:
            return settle()
        except NotHereError as error:
            said = str(error)
        node: Node | None = None
        failure: Exception | None = None  # a nursery would wrap it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.serve)
            try:
                node = await _look_again(settle, waiting, said, signals)
            except (OverlayError, PeersError) as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return node


async def _look_again(
    settle: Callable[[], Node], waiting: WaitingAgent, said: str, signals: AsyncIterator[int]
) -> Node | None:
    pause = FIRST_PAUSE
    waiting.wait_for(ADDRESS, said)
    while True:
        with trio.move_on_after(pause):
            if await anext(signals) != signal.SIGHUP:
                return None
        pause = min(2 * pause, LONGEST_PAUSE)
        try:
            return settle()
        except NotHereError as error:
            if str(error) != said:
                said = str(error)
                waiting.wait_for(ADDRESS, said)
