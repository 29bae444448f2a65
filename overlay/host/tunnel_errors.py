"""Keeps the errors with which the kernel's own tunnels answer our packets from leaving this host.

If the module of a tunnel is loaded, it gets every packet of its protocol, and answers those for which it has no tunnel
with ICMP "port unreachable", although one of our raw sockets has accepted the packet.  The far end passes the error to
TCP, which gives up connections; an LVS/TUN director passes it to its clients.  No setting of the kernel prevents that,
so an nftables table drops exactly these errors: those about packets of the protocols in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.host.nftables import DropTable, HeaderMatch
from overlay.wire.ip import DESTINATION_OPTIONS, PROTOCOL_ICMP, PROTOCOL_ICMPV6

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

# Specification: RFC 792, RFC 4443 section 3.1; where the packet that an error is about has its protocol
UNREACHABLE_PORT, UNREACHABLE_PORT_V6 = bytes((3, 3)), bytes((1, 4))
PROTOCOL_AT, NEXT_HEADER_AT = 8 + 9, 8 + 6
# RFC 8200 section 4.6: destination options, which a kernel's ip6tnl puts in between (RFC 2473 section 4.1.1)
BEHIND_OPTIONS_AT = 8 + 40


class TunnelErrors:
    """Prevents errors about the protocols in use.  The table is named after *interface*."""

    def __init__(
        self, interface: str, make: Callable[[str, Iterable[HeaderMatch]], DropTable] = DropTable
    ) -> None:
        self._name, self._make = f"overlay-{interface}", make
        self._table: DropTable | None = None
        self._protocols: frozenset[int] = frozenset()

    @property
    def prevented(self) -> frozenset[int]:
        """The IP protocols about whose packets no such errors leave this host."""
        return self._protocols

    def prevent(self, protocols: Collection[int]) -> None:
        """Block errors about packets of *protocols*, and let all others leave.

        If that is not permitted, or the kernel has no nftables, ``prevented`` stays empty, and the next call tries
        again.
        """
        wanted = frozenset(protocols)
        if wanted == self._protocols:
            return
        self.close()
        if not wanted:
            return
        try:
            self._table = self._make(self._name, matches(wanted))
        except OSError:
            return
        self._protocols = wanted

    def close(self) -> None:
        """Let all errors leave."""
        if self._table is not None:
            self._table.close()
        self._table, self._protocols = None, frozenset()


def matches(protocols: Collection[int]) -> list[HeaderMatch]:
    """Return what the errors about packets of *protocols* look like, over IPv4 and IPv6."""
    found = []
    for each in sorted(protocols):
        protocol, unreachable = bytes([each]), (0, UNREACHABLE_PORT_V6)
        found += [
            HeaderMatch(PROTOCOL_ICMP, ((0, UNREACHABLE_PORT), (PROTOCOL_AT, protocol))),
            HeaderMatch(PROTOCOL_ICMPV6, (unreachable, (NEXT_HEADER_AT, protocol))),
            HeaderMatch(
                PROTOCOL_ICMPV6,
                (unreachable, (NEXT_HEADER_AT, bytes([DESTINATION_OPTIONS])), (BEHIND_OPTIONS_AT, protocol)),
            ),
        ]
    return found
