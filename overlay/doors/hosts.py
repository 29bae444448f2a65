"""Whether an HTTP client means this host, judged by the Host header.

A web site can make its name resolve to this host (DNS rebinding), so that its script in a visitor's browser reads what
only this host, or its network, may read.  The browser then sends the name of the site, which is refused.
"""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio

from overlay.doors.fresh import Fresh
from peers.listening import TcpPlace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from peers.listening import Listening

# Ours
LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
PATIENCE = 2.0  # seconds for the full name of this host


def hosts_of(place: Listening) -> set[str] | None:
    """Return the names that a client may use for this host at *place*; None if others, or a proxy, can reach it."""
    if isinstance(place, TcpPlace) and place.is_local:
        return LOCAL_NAMES | {name_of(str(place))}
    return None


def name_of(host: str) -> str:
    """Return the name in a Host header, in lower case and without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()


async def own_names() -> set[str]:
    """Return the names of this host in lower case: the host name, its first label, and the full name in DNS, if that is
    found in PATIENCE seconds.
    """
    given = socket.gethostname()
    names = {given, given.partition(".")[0]}
    with trio.move_on_after(PATIENCE), contextlib.suppress(OSError, UnicodeError):  # it may not be in DNS
        found = await trio.socket.getaddrinfo(given, None, flags=socket.AI_CANONNAME)
        names |= {each[3] for each in found}
    return {each.lower() for each in names if each}


class Hosts:
    """The names of this host for clients at *place*, who need no token there.

    At a loopback address these are the names of hosts_of().  At another address they are the names of this host and all
    addresses, because a site's name is never an address.  A client that is not a browser may omit the name.  At a unix
    socket any name is right, because no site can lead there.
    """

    def __init__(self, place: Listening, find_names: Callable[[], Awaitable[set[str]]] = own_names) -> None:
        self._place, self._near = place, hosts_of(place)
        self._own = Fresh(find_names)

    async def include(self, host: str) -> bool:
        """Return whether the header *host* names this host, or is missing."""
        if not isinstance(self._place, TcpPlace) or not host:
            return True
        name = name_of(host).removesuffix(".")
        if self._near is not None:
            return name in self._near
        return name in LOCAL_NAMES or _is_address(name) or name in await self._own.take()


def _is_address(name: str) -> bool:
    """Return whether *name* is an address in the form of a URL's Host (RFC 3986 section 3.2.2)."""
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (address.version == 6) == (name.startswith("[") and name.endswith("]"))
