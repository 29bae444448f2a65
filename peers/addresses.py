"""Addresses and prefixes as people write them.

The parsers raise ValueError for any text that they refuse.  Its message continues a sentence that began with
the text: ``10.244.1.5/24`` *has host bits; write 10.244.1.0/24*.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

BROADCAST = IPv4Address("255.255.255.255")
IPV6_MINIMUM_MTU = 1280  # RFC 8200 section 5
SCOPE = re.compile(r"[A-Za-z0-9._-]{1,15}")  # what ipaddress does not check; 15 is the kernel's IFNAMSIZ - 1


def parse_prefix(text: str) -> Prefix:
    """Return the prefix that *text* writes as ADDRESS/LENGTH.  Raises ValueError, also for host bits."""
    try:
        # A length is digits: ipaddress would also take netmasks, host masks and scopes.
        if text[text.index("/") + 1 :].isdigit() and "%" not in text:
            return IPv6Network(text) if ":" in text else IPv4Network(text)
    except ValueError:
        pass
    raise ValueError(_why_no_prefix(text))


def parse_address(text: str) -> Address:
    """Return the address that *text* writes.  An IPv6 address may have a scope.  Raises ValueError."""
    try:
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except ValueError:
        bare, slash, _ = text.partition("/")
        if slash and _is_address(bare):
            raise ValueError(f"has a length; write {bare}") from None
        raise ValueError("is not an IP address; write one such as 10.244.1.1 or fd00:244:1::1") from None
    if isinstance(address, IPv6Address) and address.scope_id and not SCOPE.fullmatch(address.scope_id):
        raise ValueError("has a scope that is not an interface name; write one such as fe80::1%eth0")
    return address


def parse_host_address(text: str) -> Address:
    """Return the address that *text* writes, if a host can have it.  Raises ValueError."""
    address = parse_address(text)
    if not is_host_address(address):
        raise ValueError("is not an address that a host can have; write one such as 10.244.1.1")
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"has a scope; write {text.partition('%')[0]}")
    return address


def is_host_address(address: Address) -> bool:
    """Return whether a host can have *address* on a network: not unspecified, loopback or for many."""
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address == BROADCAST)


def host_prefix(address: Address) -> Prefix:
    """Return the prefix that holds *address* alone: /32 or /128."""
    if isinstance(address, IPv4Address):
        return IPv4Network(int(address))
    return IPv6Network(int(address))


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _why_no_prefix(text: str) -> str:
    address, slash, _ = text.partition("/")
    if "%" not in text and _is_address(address):
        if not slash:
            return f"has no length; write {host_prefix(parse_address(address))} if this one address is meant"
        try:
            wider = (IPv6Network if ":" in text else IPv4Network)(text, strict=False)
        except ValueError:
            return f"has no valid length; write one from 0 to {128 if ':' in text else 32} after the /"
        if str(wider.network_address) != str(parse_address(address)):
            return f"has host bits; write {wider}"
        return f"has a mask for a length; write {wider}"
    return "is not a prefix; write ADDRESS/LENGTH, such as 10.244.1.0/24 or fd00:244:1::/64"
