"""The routes of this host as /proc shows them to every user: no netlink, no privilege, and fast enough for a
command.
"""

from __future__ import annotations

import itertools
import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Prefix: TypeAlias = IPv4Network | IPv6Network

# Specification: net/ipv4/fib_trie.c, net/ipv6/route.c, linux/route.h
IPV4 = Path("/proc/net/route")  # a header; then interface, destination, gateway, flags, 3 numbers, mask
IPV6 = Path("/proc/net/ipv6_route")  # destination, its length, source, its length, next hop, 3 numbers, flags
RTF_REJECT = 0x0200

# Ours
MOST = 100_000  # lines of each; a router with the full Internet table has more


def read_routes() -> Iterator[Prefix]:
    """Yield the prefixes that have a route: in the main table, and for IPv6 in all tables.  Nothing if /proc has
    none.
    """
    for path, read in ((IPV4, read_ipv4), (IPV6, read_ipv6)):
        try:
            with path.open(encoding="ascii") as lines:
                yield from filter(None, map(read, itertools.islice(lines, MOST)))
        except OSError:  # IPv6 is switched off, or there is no /proc
            continue


def read_ipv4(line: str) -> IPv4Network | None:
    """Return the prefix of one line of IPV4; None for its header and for unreachable routes and the like."""
    fields = line.split()
    if len(fields) < 8 or fields[0] == "Iface" or int(fields[3], 16) & RTF_REJECT:
        return None
    destination, mask = (int.from_bytes(bytes.fromhex(fields[at]), sys.byteorder) for at in (1, 7))
    return IPv4Network((destination, mask.bit_count()))


def read_ipv6(line: str) -> IPv6Network | None:
    """Return the prefix of one line of IPV6; None for unreachable routes and the like."""
    fields = line.split()
    if len(fields) < 10 or int(fields[8], 16) & RTF_REJECT:
        return None
    return IPv6Network((bytes.fromhex(fields[0]), int(fields[1], 16)))
