"""``dns``: the server answers a question of the Domain Name System without an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.rcode

from overlay.services.checking import Result

if TYPE_CHECKING:
    from overlay.services.checks.way import Way
    from peers.service import Check

# Ours
LARGEST = 65535  # bytes of an answer
OTHERS = 100  # datagrams that answer something else, and are passed over


async def run(check: Check, way: Way) -> Result:
    """Ask by UDP.  Datagrams that do not answer the question are passed over, as a resolver does."""
    try:
        question = dns.message.make_query(check.query, check.query_type)
    except dns.exception.DNSException as error:
        return Result(False, f"{check.query!r} cannot be asked for: {error}")
    with await way.associate() as socket:
        await socket.send(question.to_wire())
        for _ in range(OTHERS):
            try:
                answer = dns.message.from_wire(await socket.recv(LARGEST))
            except dns.exception.DNSException:
                continue
            if not question.is_response(answer):
                continue
            code = answer.rcode()
            told = f"answers {check.query_type} {check.query} with {dns.rcode.to_text(code)}"
            return Result(code == dns.rcode.NOERROR, told)
        return Result(False, "sends many datagrams, and none answers the question")
