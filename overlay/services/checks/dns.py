"""``dns``: the server answers a DNS query without an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.rcode

from overlay.services.checking import Result
from overlay.services.checks.exchange import Exchange
from overlay.wire.ip import PROTOCOL_UDP

if TYPE_CHECKING:
    from overlay.services.checks.dialer import Dialer
    from peers.service import Check

# Ours
LARGEST = 65535  # bytes of an answer
OTHERS = 100  # datagrams that answer something else, and are ignored


async def run(check: Check, dialer: Dialer) -> Result:
    """Ask over UDP.  Datagrams that do not answer the question are ignored, as a resolver does."""
    try:
        asking = _Asking(check)
    except dns.exception.DNSException as error:
        return Result(False, f"{check.query!r} cannot be asked for: {error}")
    with await dialer.associate() as socket:
        await socket.send(asking.request)
        while (result := asking.receive(await socket.recv(LARGEST))) is None:
            pass
        return result


def exchange(check: Check, _: Dialer) -> Exchange | None:
    """Return the same as one exchange."""
    try:
        asking = _Asking(check)
    except dns.exception.DNSException:
        return None
    return Exchange(check.timeout, PROTOCOL_UDP, asking.request, asking.receive)


class _Asking:
    """One query.  Raises dns.exception.DNSException for one that cannot be sent."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._question = dns.message.make_query(check.query, check.query_type)
        self._others = 0
        self.request = self._question.to_wire()

    def receive(self, data: bytes) -> Result | None:
        """Return what a datagram says; None if it is not an answer."""
        try:
            answer = dns.message.from_wire(data)
        except dns.exception.DNSException:
            answer = None
        if answer is None or not self._question.is_response(answer):
            self._others += 1
            if self._others < OTHERS:
                return None
            return Result(False, "sends many datagrams, and none answers the question")
        code, check = answer.rcode(), self._check
        text = f"answers {check.query_type} {check.query} with {dns.rcode.to_text(code)}"
        return Result(code == dns.rcode.NOERROR, text)
