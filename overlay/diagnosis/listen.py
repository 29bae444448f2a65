"""Addresses to listen on that this host does not have, or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host.interfaces import is_own_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts


def check_listen(facts: Facts) -> Iterator[Finding]:
    """Yield each address of `listen` that this host does not have; the agent receives there once the host has it."""
    for address in facts.node.own.listen:
        if not is_own_address(address):
            yield Finding(
                "listen_address",
                f"{address}, on which this node listens, is not an address of this host",
                "the agent waits for it; if it is wrong, correct listen in the peers file",
            )
