"""ICMP errors in words, and what to check when one comes back (RFC 792, RFC 1122, RFC 1812, RFC 4443)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Hint(Enum):
    """The most likely cause of an error."""

    ABSENT = "no host on the link has the address"
    NO_ROUTE = "a router has no route"
    FILTERED = "a packet filter refuses the packet"
    TOO_BIG = "a link carries only smaller packets"
    LOOP = "routers form a loop"
    OTHER = "none of these"


# Specification, by IP version, type and code: RFC 792, RFC 1122 section 3.2.2.1 and RFC 1812 section 5.2.7.1 for IPv4,
# RFC 4443 section 3, RFC 6550 section 20.14 and RFC 8883 for IPv6.
_ERRORS = {
    (4, 3, 0): ("network unreachable", Hint.NO_ROUTE),
    (4, 3, 1): ("host unreachable", Hint.ABSENT),
    (4, 3, 2): ("protocol unreachable", Hint.FILTERED),  # every host has ICMP, so this comes from a filter
    (4, 3, 3): ("port unreachable", Hint.FILTERED),  # an echo request has no port
    (4, 3, 4): ("packet too big", Hint.TOO_BIG),
    (4, 3, 5): ("source route failed", Hint.OTHER),
    (4, 3, 6): ("network unknown", Hint.NO_ROUTE),
    (4, 3, 7): ("host unknown", Hint.ABSENT),
    (4, 3, 8): ("source host isolated", Hint.OTHER),
    (4, 3, 9): ("network administratively prohibited", Hint.FILTERED),
    (4, 3, 10): ("host administratively prohibited", Hint.FILTERED),
    (4, 3, 11): ("network unreachable for this type of service", Hint.NO_ROUTE),
    (4, 3, 12): ("host unreachable for this type of service", Hint.NO_ROUTE),
    (4, 3, 13): ("communication administratively prohibited", Hint.FILTERED),
    (4, 3, 14): ("host precedence violation", Hint.FILTERED),
    (4, 3, 15): ("precedence cutoff in effect", Hint.FILTERED),
    (4, 11, 0): ("time exceeded", Hint.LOOP),
    (4, 11, 1): ("fragments not reassembled in time", Hint.OTHER),
    (6, 1, 0): ("no route to destination", Hint.NO_ROUTE),
    (6, 1, 1): ("communication administratively prohibited", Hint.FILTERED),
    (6, 1, 2): ("beyond scope of source address", Hint.OTHER),
    (6, 1, 3): ("address unreachable", Hint.ABSENT),
    (6, 1, 4): ("port unreachable", Hint.FILTERED),
    (6, 1, 5): ("source address failed policy", Hint.FILTERED),
    (6, 1, 6): ("reject route to destination", Hint.NO_ROUTE),
    (6, 2, 0): ("packet too big", Hint.TOO_BIG),
    (6, 3, 0): ("hop limit exceeded", Hint.LOOP),
    (6, 3, 1): ("fragments not reassembled in time", Hint.OTHER),
}
_PARAMETER_PROBLEM = {4: 12, 6: 4}


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error of IP *version*, with its type and code; *value* is the 32 bits that depend on them."""

    version: int
    kind: int
    code: int
    value: int = 0

    @property
    def hint(self) -> Hint:
        """Return its most likely cause."""
        return _ERRORS.get((self.version, self.kind, self.code), ("", Hint.OTHER))[1]

    def __str__(self) -> str:
        if self.kind == _PARAMETER_PROBLEM[self.version]:
            return "parameter problem"
        name, hint = _ERRORS.get((self.version, self.kind, self.code), ("", Hint.OTHER))
        if not name:
            return f"ICMP type {self.kind}, code {self.code}"
        if hint is Hint.TOO_BIG and self.value:
            return f"{name}, at most {self.value} bytes pass"
        return name
