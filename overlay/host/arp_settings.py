"""Settings that keep a host from answering ARP on its links for addresses that it holds for services (RFC 826).

Linux answers ARP for any address of the host on any link, and may use one as the sender of its own requests: a server
that shares a link with its director would take the virtual address away from it.  Neighbour discovery does neither.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.host.netlink.fib import Link
    from overlay.host.plan import IPAddress

# Specification: Documentation/networking/ip-sysctl
ARP_IGNORE_OTHERS = 1  # answer only for addresses of the interface that received the request
ARP_ANNOUNCE_BEST = (
    2  # send requests from an address of the outgoing interface, preferably one on the target's network
)


def keep_to_tun(held: Iterable[IPAddress], links: Iterable[Link]) -> list[tuple[str, int]]:
    """Return the settings, each with its name, of every link whose network has an address in *held*."""
    addresses = [address for address in held if address.version == 4]
    indices = {
        link.index
        for link in links
        if link.network.prefixlen and any(address in link.network for address in addresses)
    }
    settings: list[tuple[str, int]] = []
    for index in sorted(indices):
        with contextlib.suppress(OSError):  # it may be gone meanwhile
            name = socket.if_indextoname(index)
            settings.append((f"ipv4/conf/{name}/arp_ignore", ARP_IGNORE_OTHERS))
            settings.append((f"ipv4/conf/{name}/arp_announce", ARP_ANNOUNCE_BEST))
    return settings
