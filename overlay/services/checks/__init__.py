"""How a server is asked whether it works: one file for each kind of check, and the registry of them.

A check takes the way of the clients: through the tunnel, to the virtual address, at the server in question.  What makes
sure of that is behind ``Way``; a kind of check knows sockets that lead there and nothing else.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

import trio

from overlay.services.checking import Result
from overlay.services.checks.way import why
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.services.checks.way import Way
    from peers.service import Check

# Ours
REASON_SIZE = 200  # characters of a reason: some of it comes from the server

KINDS = {
    "tcp": "tcp",
    "http": "http",
    "https": "http",
    "udp": "udp",
    "dns": "dns",
    "ping": "ping",
    "script": "script",
}
"""The module of each kind of check.  Its run() raises OSError where the kernel or the network says no.

One is loaded when it is first used: the libraries for DNS and HTTP take a tenth of a second, and most nodes check nothing.
"""


@functools.cache
def runner(kind: str) -> Callable[[Check, Way], Awaitable[Result]]:
    """Return what runs a check of *kind*."""
    found: Callable[[Check, Way], Awaitable[Result]] = importlib.import_module(
        f"{__name__}.{KINDS[kind]}"
    ).run
    return found


async def run(check: Check, way: Way) -> Result:
    """Run *check* once, at most for its time, and return what it found.  Nothing that a server does is an exception.

    Raises NotAskedError where this node could not ask.
    """
    result = Result(False, f"no answer within {check.timeout:g} s")
    with trio.move_on_after(check.timeout):
        try:
            result = await runner(check.kind)(check, way)
        except OSError as error:
            result = Result(False, why(error))
    return Result(result.is_good, printable(result.reason)[:REASON_SIZE], result.weight)
