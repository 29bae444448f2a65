"""``udp``: the server answers a datagram as expected or, where nothing is expected, does not refuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from overlay.services.checking import Result

if TYPE_CHECKING:
    from overlay.services.checks.way import Way
    from peers.service import Check

# Ours
LARGEST = 65535  # bytes of an answer
SHARE = 0.9  # of the time of a check in which silence is waited for


async def run(check: Check, way: Way) -> Result:
    """Send the datagram and look at what comes back; an ICMP error that comes back raises OSError."""
    with await way.associate() as socket:
        await socket.send(check.send)
        if check.expect is not None:
            answer = await socket.recv(LARGEST)
            if answer.startswith(check.expect):
                return Result(True, "answers as expected")
            return Result(False, "answers otherwise than expected")
        with trio.move_on_after(check.timeout * SHARE):
            await socket.recv(LARGEST)
            return Result(True, "answers")
        return Result(True, "does not refuse datagrams")
