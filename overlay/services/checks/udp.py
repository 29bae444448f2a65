"""``udp``: the server answers a datagram as expected or, if no answer is expected, does not refuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from overlay.services.checking import Result
from overlay.services.checks.exchange import Exchange
from overlay.wire.ip import PROTOCOL_UDP

if TYPE_CHECKING:
    from overlay.services.checks.dialer import Dialer
    from peers.service import Check

# Ours
LARGEST = 65535  # bytes of an answer
SHARE = 0.9  # of the time of a check; without an answer until then, the server is silent
_SILENT = Result(True, "does not refuse datagrams")


async def run(check: Check, dialer: Dialer) -> Result:
    """Send the datagram and examine the answer; an ICMP error raises OSError."""
    with await dialer.associate() as socket:
        await socket.send(check.send)
        if check.expect is not None:
            return _judge(check, await socket.recv(LARGEST))
        with trio.move_on_after(check.timeout * SHARE):
            return _judge(check, await socket.recv(LARGEST))
        return _SILENT


def exchange(check: Check, _: Dialer) -> Exchange:
    """Return the same as one exchange."""
    silent, patience = None, check.timeout
    if check.expect is None:
        silent, patience = _SILENT, check.timeout * SHARE
    return Exchange(patience, PROTOCOL_UDP, check.send, lambda answer: _judge(check, answer), silent=silent)


def _judge(check: Check, answer: bytes) -> Result:
    if check.expect is None:
        return Result(True, "answers")
    if answer.startswith(check.expect):
        return Result(True, "answers as expected")
    return Result(False, "gives an unexpected answer")
