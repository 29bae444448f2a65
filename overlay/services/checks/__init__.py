"""The checks that ask a server whether it works: one file for each kind, and their registry.

A check takes the same path as clients: through the tunnel, to the virtual address, at the server in question.
``Dialer`` ensures that; a kind of check only knows sockets that lead there.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

import trio

from overlay.services.checking import Result
from overlay.services.checks.dialer import NotAskedError, why
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

    from overlay.services.checks.dialer import Dialer
    from overlay.services.checks.exchange import Exchange
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
"""The module of each kind of check.  Its run() raises OSError if the kernel or the network refuses.

If it has exchange(), a check costs a fraction: that returns what run() does as one exchange, or None if it cannot.

A module is loaded when it is first used: the libraries for DNS and HTTP take a tenth of a second, and most nodes check
nothing.
"""


@functools.cache
def runner(kind: str) -> Callable[[Check, Dialer], Awaitable[Result]]:
    """Return the function that runs a check of *kind*."""
    found: Callable[[Check, Dialer], Awaitable[Result]] = _module(kind).run
    return found


@functools.cache
def _exchanging(kind: str) -> Callable[[Check, Dialer], Exchange | None] | None:
    return getattr(_module(kind), "exchange", None)


def _module(kind: str) -> ModuleType:
    """Return the module of *kind*.

    Raises NotAskedError if it cannot be loaded: since this program was started, its files may have been replaced by
    those of another release, or they are being replaced.
    """
    try:
        return importlib.import_module(f"{__name__}.{KINDS[kind]}")
    except (ImportError, SyntaxError, OSError) as error:
        raise NotAskedError(
            f"its module cannot be loaded ({error}): overlay was upgraded or removed while the agent ran; "
            "restart the agent"
        ) from error


def as_exchange(check: Check, dialer: Dialer) -> Exchange | None:
    """Return *check* as one exchange; None for one that needs more, or cannot be made here, and must be run."""
    try:
        make = _exchanging(check.kind)
    except NotAskedError:
        return None  # run() says why
    return None if make is None else make(check, dialer)


async def run(check: Check, dialer: Dialer) -> Result:
    """Run *check* once, at most for its time, and return what it found.  Nothing that a server does raises an
    exception.

    Raises NotAskedError if this node could not ask.
    """
    result = unanswered(check.timeout)
    with trio.move_on_after(check.timeout):
        try:
            result = await runner(check.kind)(check, dialer)
        except OSError as error:
            result = failed(error)
    return bounded(result)


def failed(error: OSError, *, is_connected: bool = False) -> Result:
    """Return the result of a check that ended with *error*; *is_connected* for a connection that the server ended."""
    return Result(False, f"ended the connection: {why(error)}" if is_connected else why(error))


def unanswered(timeout: float) -> Result:
    """Return the result of a check that got no answer within *timeout* seconds."""
    return Result(False, f"no answer within {timeout:g} s")


def bounded(result: Result) -> Result:
    """Return *result* with a reason that can be shown: some of it comes from the server."""
    if result.reason.isascii() and result.reason.isprintable() and len(result.reason) <= REASON_SIZE:
        return result
    return Result(result.is_good, printable(result.reason)[:REASON_SIZE], result.weight)
