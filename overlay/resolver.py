"""From configured endpoints to socket addresses, without blocking anything."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from overlay.errors import OverlayError

if TYPE_CHECKING:
    from overlay.wire.addresses import Sockaddr
    from peers.peer import Endpoint

# Ours
RESOLVE_TIMEOUT = 10.0  # seconds for one name
RESOLVE_INTERVAL = 300.0  # seconds; names are looked up again that often even while all is well
RESOLVE_PAUSE = 10.0  # seconds between two look-ups of one name when handshakes fail


class ResolveError(OverlayError):
    """A name has no address now.  The text says why."""


def literal(endpoint: Endpoint) -> tuple[Sockaddr, ...]:
    """Return the socket address of an endpoint that is an address, nothing for a DNS name."""
    address = endpoint.address
    if address is None:
        return ()
    if address.version == 4:
        return ((str(address), endpoint.port),)
    scope = address.scope_id
    index = 0
    if scope:
        try:
            index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
        except OSError:
            return ()  # the interface is not there yet
    return ((str(address).partition("%")[0], endpoint.port, 0, index),)


async def resolve(endpoint: Endpoint) -> tuple[Sockaddr, ...]:
    """Return the socket addresses that *endpoint* stands for, the host's preferred one first.

    Raises ResolveError.
    """
    known = literal(endpoint)
    if known:
        return known
    try:
        with trio.fail_after(RESOLVE_TIMEOUT):
            found = await trio.socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
            )
    except trio.TooSlowError:
        raise ResolveError(f"{endpoint.host} was not resolved in {RESOLVE_TIMEOUT:g} s") from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise ResolveError(f"{endpoint.host} was not resolved: {reason}") from None
    addresses: list[Sockaddr] = []
    for family, _, _, _, sockaddr in found:
        if family == socket.AF_INET:
            addresses.append((str(sockaddr[0]), int(sockaddr[1])))
        elif family == socket.AF_INET6 and len(sockaddr) == 4:
            addresses.append((str(sockaddr[0]), int(sockaddr[1]), int(sockaddr[2]), int(sockaddr[3])))
    if not addresses:
        raise ResolveError(f"{endpoint.host} was not resolved: it has no address")
    return tuple(dict.fromkeys(addresses))
