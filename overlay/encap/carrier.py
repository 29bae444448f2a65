"""What carries a tunnel over the underlay, in words: what must pass there, and what both ends must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.encap.encapsulation import Encapsulation, Ends


def carried_by(encapsulation: Encapsulation) -> str:
    """Return what must pass between the two ends: ``UDP``, ``IP protocol 47``."""
    if encapsulation.has_ports:
        return "UDP"
    v4, v6 = encapsulation.protocols[4], encapsulation.protocols[6]
    return f"IP protocol {v4}" if v4 == v6 else f"IP protocol {v4} (for IPv4) or {v6} (for IPv6)"


def identified_by(encapsulation: Encapsulation, ends: Ends) -> str | None:
    """Return the number that both ends must have, such as ``the GRE key 7``; None if the tunnel has no number."""
    identifier = encapsulation.facts.identifier
    if identifier is None:
        return None
    return f"no {identifier.name}" if ends.identifier is None else f"the {identifier.name} {ends.identifier}"
