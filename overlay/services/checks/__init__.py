"""How a server is asked whether it works: one file for each kind of check, and the registry of them.

A check takes the way of the clients: through the tunnel, to the virtual address, at the server in question.  What makes
sure of that is behind ``Way``; a kind of check knows sockets that lead there and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from overlay.services.checking import Result
from overlay.services.checks import dns, http, ping, script, tcp, udp
from overlay.services.checks.way import why
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.services.checks.way import Way
    from peers.service import Check

# Ours
REASON_SIZE = 200  # characters of a reason: some of it comes from the server

KINDS: dict[str, Callable[[Check, Way], Awaitable[Result]]] = {
    "tcp": tcp.run,
    "http": http.run,
    "https": http.run,
    "udp": udp.run,
    "dns": dns.run,
    "ping": ping.run,
    "script": script.run,
}
"""What runs a check of each kind.  Raises OSError where the kernel or the network says no."""


async def run(check: Check, way: Way) -> Result:
    """Run *check* once, at most for its time, and return what it found.  Nothing that a server does is an exception.

    Raises NotAskedError where this node could not ask.
    """
    result = Result(False, f"no answer within {check.timeout:g} s")
    with trio.move_on_after(check.timeout):
        try:
            result = await KINDS[check.kind](check, way)
        except OSError as error:
            result = Result(False, why(error))
    return Result(result.is_good, printable(result.reason)[:REASON_SIZE], result.weight)
