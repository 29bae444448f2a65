"""A node that knows itself by an address of its host, which may come later than the agent."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import trio

from overlay.errors import NotHereError
from overlay.host import notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.config import Node

# Ours
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0  # seconds between two looks; each reads the peers file

log = logging.getLogger("overlay")


async def wait_until_here(settle: Callable[[], Node]) -> Node | None:
    """Return what *settle* does as soon as it knows who this node is; None where a signal says to stop.

    Other errors than that it does not know come out.  SIGHUP makes it look at once.
    """
    said, pause = "", FIRST_PAUSE
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        while True:
            try:
                return settle()
            except NotHereError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("waiting for an address of this host: %s", said)
                    notify.status(f"waiting for an address: {said}")
            with trio.move_on_after(pause):
                if await anext(signals) != signal.SIGHUP:
                    return None
            pause = min(2 * pause, LONGEST_PAUSE)
