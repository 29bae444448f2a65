"""The UDP sockets of this network namespace, as the kernel lists them for every user."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.plan import IPAddress

# Specification: proc_net_udp(5)
TABLES = (Path("/proc/thread-self/net/udp"), Path("/proc/thread-self/net/udp6"))
LOCAL, USER, INODE = 1, 7, 9  # columns
WORD = 4  # bytes; an address is given in hexadecimal words of the host's order


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """One socket: where it receives, the user who made it, and the inode that links it to its process."""

    address: IPAddress
    port: int
    user: int
    inode: int

    @property
    def family(self) -> int:
        """The family in which it receives: an IPv6 socket that is bound to a mapped address receives IPv4."""
        is_ipv6 = isinstance(self.address, IPv6Address) and self.address.ipv4_mapped is None
        return socket.AF_INET6 if is_ipv6 else socket.AF_INET


def bound_sockets() -> Iterator[BoundSocket]:
    """Yield each socket.  Raises OSError if the tables cannot be read."""
    for path in TABLES:
        try:
            lines = path.read_text().splitlines()[1:]
        except FileNotFoundError:  # no IPv6
            continue
        for line in lines:
            fields = line.split()
            host, _, port = fields[LOCAL].partition(":")
            words = [bytes.fromhex(host[at : at + 2 * WORD]) for at in range(0, len(host), 2 * WORD)]
            packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
            yield BoundSocket(ip_address(packed), int(port, 16), int(fields[USER]), int(fields[INODE]))
