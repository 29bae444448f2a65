"""Resolves configured endpoints to socket addresses, without blocking."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import trio

from overlay.errors import HostError, OverlayError
from overlay.host import policy_bypass
from overlay.host.interfaces import sockaddr_of
from overlay.records.events import of_peer
from overlay.troubles.unresolved import RESOLVE_PAUSE
from peers.addresses import BROADCAST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from overlay.host.names import Names
    from overlay.roster import Remote
    from overlay.wire.addresses import Sockaddr
    from peers.addresses import Address
    from peers.peer import Endpoint

# Ours
FIRST_TIME = 5.0  # seconds that the start waits for names: name servers may be behind the tunnel
RESOLVE_TIMEOUT = 10.0  # seconds for one name
RESOLVE_INTERVAL = 300.0  # seconds; names are looked up again that often even if all is well
CLEAR_INTERVAL = 30.0  # seconds, for unencrypted peers, because no handshake fails when one has moved
LOOKUPS_AT_ONCE = 16  # each takes a thread, for up to a minute if a name server is silent

log = logging.getLogger("overlay")


class ResolveError(OverlayError):
    """A name has no address at the moment; the text says why."""


def literal(endpoint: Endpoint) -> tuple[Sockaddr, ...]:
    """Return the socket address of an endpoint that is an address; empty for a DNS name, or if its interface is
    missing.
    """
    if endpoint.address is None:
        return ()
    try:
        return (sockaddr_of(endpoint.address, endpoint.port),)
    except (HostError, OSError):  # the interface is missing or unknown: it is looked up again
        return ()


async def resolve(endpoint: Endpoint) -> tuple[Sockaddr, ...]:
    """Return the socket addresses of *endpoint*, the host's preferred one first.

    Raises ResolveError.
    """
    if endpoint.address is not None:
        return (_address_of(endpoint, endpoint.address),)
    try:
        with trio.fail_after(RESOLVE_TIMEOUT):
            found = await trio.socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
            )
    except trio.TooSlowError:
        raise ResolveError(f"{endpoint.host} was not resolved in {RESOLVE_TIMEOUT:g} s") from None
    except (OSError, UnicodeError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "it is not a host name"
        raise ResolveError(f"{endpoint.host} was not resolved ({reason})") from None
    usable = [sockaddr for _, _, _, _, each in found if (sockaddr := _usable(each)) is not None]
    if not usable:
        raise ResolveError(f"{endpoint.host} was not resolved (it has no address of a single host)")
    return tuple(dict.fromkeys(usable))


def resolve_all(endpoints: Mapping[str, Endpoint], seconds: float) -> dict[str, tuple[Sockaddr, ...] | str]:
    """Return, by name, the addresses of each of *endpoints*, or why they are unknown after that many *seconds*.

    For callers without an event loop: it blocks.
    """
    found: dict[str, tuple[Sockaddr, ...] | str] = {
        name: f"{each.host} was not resolved in {seconds:g} s" for name, each in endpoints.items()
    }

    async def look_up(name: str, endpoint: Endpoint) -> None:
        try:
            found[name] = await resolve(endpoint)
        except ResolveError as error:
            found[name] = str(error)

    async def look_up_all() -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for name, each in endpoints.items():
                    nursery.start_soon(look_up, name, each)

    if endpoints:
        trio.run(look_up_all)
    return found


def _address_of(endpoint: Endpoint, address: Address) -> Sockaddr:
    """Return the socket address of *endpoint*, which is *address*.  Raises ResolveError if its interface is missing."""
    try:
        return sockaddr_of(address, endpoint.port)
    except HostError as error:
        raise ResolveError(f"{endpoint.host} has no address yet ({error})") from None
    except OSError:
        raise ResolveError(f"{endpoint.host} is on an interface that this host does not have") from None


def _usable(found: Sequence[object]) -> Sockaddr | None:
    """Return a name server's answer as an address to send to; None if it is not the address of one host."""
    host, port, *rest = found
    if not isinstance(host, str) or not isinstance(port, int):
        return None
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address, rest = address.ipv4_mapped, []
    if address.is_unspecified or address.is_multicast or address == BROADCAST:
        return None
    match rest:
        case [int(flow), int(scope)]:
            return str(address), port, flow, scope
        case _:
            return str(address), port


def known(endpoint: Endpoint, names: Names) -> tuple[Sockaddr, ...]:
    """Return the known addresses of *endpoint*, without a look-up: an address, or the last ones of its name."""
    if endpoint.address is not None:
        return literal(endpoint)
    addresses = map(ip_address, names.find(endpoint.host))
    return tuple(
        (str(each), endpoint.port) if each.version == 4 else (str(each), endpoint.port, 0, 0)
        for each in addresses
    )


async def resolve_first(remotes: Iterable[Remote], names: Names) -> None:
    """Look up the names of *remotes* without known addresses, for at most FIRST_TIME.

    A daemon that does look-ups for the whole host does not bypass the tunnel, so this happens before the tunnel exists.
    """

    async def look(remote: Remote, endpoint: Endpoint) -> None:
        with contextlib.suppress(ResolveError):
            remote.resolved = await resolve(endpoint)
            remote.endpoint = remote.resolved[0]
            names.remember(endpoint.host, tuple(sockaddr[0] for sockaddr in remote.resolved))

    with trio.move_on_after(FIRST_TIME):
        async with trio.open_nursery() as nursery:
            for remote in remotes:
                if remote.configured is not None and not remote.resolved:
                    nursery.start_soon(look, remote, remote.configured)


class UnderlayResolver(trio.abc.HostnameResolver):
    """Looks up names outside the policy routes; after a failure, once like other programs on this host.

    A name server may only be reachable through the tunnel; it then answers once the tunnel is up.
    """

    def __init__(self, uid: int) -> None:
        """*uid* is the user that bypasses those routes."""
        self._uid = uid
        self._failed: set[bytes] = set()  # names that were not found outside the last time

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002  trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Return the result of socket.getaddrinfo()."""
        hints = family, type, proto, flags
        if host is None or host in self._failed:
            self._failed.discard(host or b"")
            look = functools.partial(socket.getaddrinfo, host, port, *hints)
        else:
            self._failed.add(host)
            look = functools.partial(policy_bypass.getaddrinfo, self._uid, host, port, *hints)
        found: list[Any] = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        self._failed.discard(host or b"")
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Return the result of socket.getnameinfo(), asked through sockets of that user, too."""
        look = functools.partial(policy_bypass.as_owner, self._uid, socket.getnameinfo, sockaddr, flags)
        found: tuple[str, str] = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        return found


def _interval(remote: Remote) -> float:
    """Return for how many seconds the known addresses of the name of *remote* are good enough."""
    if not remote.resolved or remote.resolve_error is not None:
        return RESOLVE_PAUSE
    return RESOLVE_INTERVAL if remote.encapsulation.is_encrypted else CLEAR_INTERVAL


class Resolver:
    """Keeps the endpoints of remotes up to date; *moved* is awaited with each new one and its cause."""

    def __init__(
        self,
        nursery: trio.Nursery,
        moved: Callable[[Remote, Sockaddr, str], Awaitable[None]],
        names: Names,
    ) -> None:
        """*names* gets the addresses of names, for the next start."""
        self._nursery, self._moved, self._names = nursery, moved, names
        self._running: set[int] = set()
        self._at_once = trio.Semaphore(LOOKUPS_AT_ONCE)

    def resolve_soon(self, remote: Remote, now: float, attempt: int = 0) -> None:
        """Look up the configured endpoint of *remote*, in the background.

        After *attempt* unanswered handshakes, try in turn the peer's last known address and every address of its name.
        """
        if remote.configured is not None and remote.number not in self._running:
            self._running.add(remote.number)
            self._nursery.start_soon(self._resolve, remote, remote.configured, now, attempt)

    def resolve_due(self, remotes: Iterable[Remote], now: float) -> None:
        """Look up again the names whose last look-up was a while ago."""
        for remote in remotes:
            endpoint = remote.configured
            if endpoint is None or (endpoint.address is not None and remote.resolved):
                continue
            if now - remote.resolved_at >= _interval(remote):
                self.resolve_soon(remote, now)

    def resolve_again(self, remotes: Iterable[Remote], now: float) -> None:
        """Look up all names again at a user's request, except those that were just looked up."""
        for remote in remotes:
            if remote.configured is not None and remote.configured.address is None:
                self.resolve_soon(remote, now)

    async def _resolve(self, remote: Remote, endpoint: Endpoint, now: float, attempt: int) -> None:
        found = remote.resolved
        try:
            if not found or now - remote.resolved_at >= RESOLVE_PAUSE:
                remote.resolved_at = now
                async with self._at_once:
                    found = await resolve(endpoint)
                remote.resolve_error = None
                if endpoint.address is None:
                    self._names.remember(endpoint.host, tuple(sockaddr[0] for sockaddr in found))
        except ResolveError as error:
            if remote.configured == endpoint:
                self._failed(remote, str(error))
        finally:
            self._running.discard(remote.number)
        if remote.configured != endpoint:
            self.resolve_soon(remote, now)  # its endpoint was reconfigured meanwhile
        elif found:
            await self._take(remote, found, attempt)

    async def _take(self, remote: Remote, found: tuple[Sockaddr, ...], attempt: int) -> None:
        before, remote.resolved = remote.resolved, found
        if attempt:
            heard = [remote.heard_at] if remote.heard_at is not None else []
            candidates = list(dict.fromkeys([*heard, *found]))
            chosen = candidates[attempt % len(candidates)]
        elif remote.endpoint is None or (remote.endpoint in before and remote.endpoint not in found):
            chosen = found[0]
        else:
            return  # the peer is there already, or was heard from elsewhere
        if chosen != remote.endpoint:
            is_address = remote.configured is not None and remote.configured.address is not None
            await self._moved(remote, chosen, "configuration" if is_address else "dns")

    def _failed(self, remote: Remote, error: str) -> None:
        """Log *error*; at a level above debug only if it is new."""
        is_news, remote.resolve_error = error != remote.resolve_error, error
        level, name = logging.WARNING if is_news else logging.DEBUG, remote.peer.name
        log.log(level, "%s peer=%s", error, name, extra=of_peer(name))
