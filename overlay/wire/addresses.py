"""Outer addresses as the socket calls take and give them."""

from __future__ import annotations

from typing import TypeAlias

Sockaddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""(host, port) for IPv4; (host, port, flow info, scope id) for IPv6.  The host is numeric."""


def format_sockaddr(address: Sockaddr) -> str:
    """Return ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``; a link-local address keeps its scope."""
    if len(address) == 2:
        return f"{address[0]}:{address[1]}"
    host, port, _, scope = address
    if scope and "%" not in host:
        host = f"{host}%{scope}"
    return f"[{host}]:{port}"
