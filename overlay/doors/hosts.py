"""Whether a client that speaks HTTP means this host: by the Host that it names.

A web site can have a name of its own resolve to this host (DNS rebinding), and its script would read in a visitor's
browser what only this host, or its network, may read.  The browser names the site then, and that is refused.
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

    from peers.listening import Place

# Ours
LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
PATIENCE = 2.0  # seconds for the full name of this host


def hosts_of(place: Place) -> set[str] | None:
    """Return how a client may name this host at *place*; None where others reach that, or a proxy stands there."""
    if isinstance(place, TcpPlace) and place.is_local:
        return LOCAL_NAMES | {name_of(str(place))}
    return None


def name_of(host: str) -> str:
    """Return the name in a Host header, in lower case and without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()


async def own_names() -> set[str]:
    """Return the names of this host in lower case: as it was given, its first label, and its full name in DNS, if that
    is found in PATIENCE seconds.
    """
    given = socket.gethostname()
    names = {given, given.partition(".")[0]}
    with trio.move_on_after(PATIENCE), contextlib.suppress(OSError, UnicodeError):  # it may be in no DNS
        found = await trio.socket.getaddrinfo(given, None, flags=socket.AI_CANONNAME)
        names |= {each[3] for each in found}
    return {each.lower() for each in names if each}


class Hosts:
    """The names of this host for clients at *place*, where nobody is asked for a token.

    At a loopback address they are those of hosts_of().  At another they are all addresses, which no site has as a name,
    and the names of this host.  What is not a browser may name none.  At a unix socket any is right: no site leads
    there.
    """

    def __init__(self, place: Place, find_names: Callable[[], Awaitable[set[str]]] = own_names) -> None:
        self._place, self._near = place, hosts_of(place)
        self._own = Fresh(find_names)

    async def include(self, host: str) -> bool:
        """Return whether the header *host* names this host, or nothing."""
        if not isinstance(self._place, TcpPlace) or not host:
            return True
        name = name_of(host).removesuffix(".")
        if self._near is not None:
            return name in self._near
        return name in LOCAL_NAMES or _is_address(name) or name in await self._own.take()


def _is_address(name: str) -> bool:
    """Return whether *name* is an address as the Host of a URL has it (RFC 3986 section 3.2.2)."""
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (address.version == 6) == (name.startswith("[") and name.endswith("]"))
