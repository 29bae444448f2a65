"""Outer addresses in the form of socket calls."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Any, TypeAlias

from overlay.errors import PacketError

# Ours
REMEMBERED = 16384  # hosts whose bytes are cached: those of all peers are asked for in turn
HOST_CHARACTERS = 64  # an IPv6 address with the name of an interface


def read_sockaddr(value: Any) -> Sockaddr:
    """Return the address that a message between agent and forwarder contains as the list *value*.

    Raises PacketError ``link``, and nothing else, for any value.
    """
    if type(value) is not list or len(value) not in {2, 4}:
        raise PacketError("link")
    host, port, *rest = value
    if not all(type(number) is int and 0 <= number < 2**32 for number in (port, *rest)) or port > 0xFFFF:
        raise PacketError("link")
    if type(host) is not str or len(host) > HOST_CHARACTERS or not host.isprintable():
        raise PacketError("link")
    address: Sockaddr = (host, port, *rest)
    try:
        pack_host(address)
    except ValueError:
        raise PacketError("link") from None
    return address


Sockaddr: TypeAlias = Annotated[tuple[str, int] | tuple[str, int, int, int], read_sockaddr]
"""(host, port) for IPv4; (host, port, flow info, scope id) for IPv6.  The host is numeric."""


def format_sockaddr(address: Sockaddr) -> str:
    """Return ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``; without a port, only the host.

    A link-local address keeps its scope.
    """
    host, port, *rest = address
    scope = rest[1] if rest else 0
    if scope and "%" not in host:
        host = f"{host}%{scope}"
    if not port:
        return host
    if not rest:
        return f"{host}:{port}"
    return f"[{host}]:{port}"


def pack_host(address: Sockaddr) -> bytes:
    """Return the host in 4 or 16 bytes, without its scope.  Raises ValueError for any other text."""
    packed = _packed(address[0])
    if len(packed) != (4 if len(address) == 2 else 16):
        raise ValueError(address[0])
    return packed


@lru_cache(REMEMBERED)
def _packed(host: str) -> bytes:
    return ip_address(host).packed
