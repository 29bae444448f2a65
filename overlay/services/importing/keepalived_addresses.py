"""Addresses, ranges of them, ports and masks in keepalived's notation."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from peers.addresses import parse_host_address

if TYPE_CHECKING:
    from overlay.importing.places import FileLine, Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.blocks import Directive
    from peers.addresses import Address

# Ours
MOST_ADDRESSES = 1024  # of one entry of a group
MOST_IN_GROUP = 16_384

MARKS = (
    "services are distinguished by addresses and ports here, not by marks; write a service for each address"
)

_PORT = re.compile(r"[0-9]{1,5}")


def read_address(
    directive: Directive, text: str, port: str | None, remarks: Remarks
) -> tuple[Address, int | None] | None:
    """Return the address *text* and the *port*, None for 0 or a missing one; None, with a remark, if they are
    invalid.
    """
    try:
        address = _parse(text)
        return address, _parse_port(port)
    except ValueError as error:
        remarks.add(directive.place, str(directive), f"{error}; it is left out")
        return None


def read_group(directive: Directive, remarks: Remarks) -> tuple[tuple[Address, int | None], ...]:
    """Return the entries of the virtual_server_group *directive*, with ranges expanded."""
    found: list[tuple[Address, int | None]] = []
    for entry in directive.content:
        if entry.keyword == "fwmark":
            remarks.add(entry.place, str(entry), MARKS)
            continue
        try:
            port = _parse_port(entry.value or None)
            addresses = _range(entry.keyword)
            if len(found) + len(addresses) > MOST_IN_GROUP:
                raise ValueError(
                    f"{entry.keyword} exceeds the {MOST_IN_GROUP} addresses that a group may have"
                )
            found += [(address, port) for address in addresses]
        except ValueError as error:
            remarks.add(entry.place, str(entry), f"{error}; it is left out")
    return tuple(found)


def read_granularity(directive: Directive, versions: set[int], remarks: Remarks) -> dict[str, Value]:
    """Return the keys for grouping clients by *directive*: an IPv4 netmask, or an IPv6 prefix length."""
    text = directive.value
    if "." in text:
        return prefix_keys(directive.place, str(directive), text, versions & {4}, remarks)
    return prefix_keys(directive.place, str(directive), text, versions & {6}, remarks)


def prefix_keys(
    place: FileLine, subject: str, text: str, versions: set[int], remarks: Remarks
) -> dict[str, Value]:
    """Return the keys for persistence by a netmask or prefix length *text*, for a service with addresses of
    *versions*.
    """
    if 4 in versions and "." in text:
        try:
            mask = int(IPv4Address(text))
        except ValueError:
            remarks.add(place, subject, "is not a netmask")
            return {}
        ones = mask.bit_count()
        if mask != ((1 << ones) - 1) << (32 - ones) or not ones:
            remarks.add(
                place,
                subject,
                "is an empty or non-contiguous netmask; clients are distinguished by prefixes",
            )
            return {}
        return {} if ones == 32 else {"persistence_prefix": ones}
    if 6 in versions and re.fullmatch(r"[0-9]{1,3}", text) and 1 <= int(text) <= 128:
        return {} if int(text) == 128 else {"persistence_prefix_v6": int(text)}
    remarks.add(place, subject, "is not a mask for the IP version of the service's addresses")
    return {}


def _parse(text: str) -> Address:
    try:
        address = parse_host_address(text)
    except ValueError as error:
        raise ValueError(f"{text} {error}" if text else "has no address") from None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise ValueError(f"{text} is an IPv4 address in IPv6 form; write {address.ipv4_mapped}")
        if address.is_link_local:
            raise ValueError(f"{text} is link-local, which no router forwards")
    return address


def _parse_port(text: str | None) -> int | None:
    if text is None:
        return None
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"{text} is not a port from 0 to 65535")
    return int(text) or None


def _range(text: str) -> list[Address]:
    """Return the addresses of an entry: one, FIRST-LAST, FIRST-LAST with only the last part, or a prefix."""
    if "/" in text:
        return _prefix(text)
    first_text, dash, last_text = text.partition("-")
    first = _parse(first_text)
    if not dash:
        return [first]
    last = _last_of(first, last_text)
    number = int(last) - int(first) + 1
    if number < 1:
        raise ValueError(f"{text} ends before it begins")
    _refuse_many(text, number)
    return [type(first)(int(first) + index) for index in range(number)]


def _last_of(first: Address, text: str) -> Address:
    if ":" in text or "." in text:
        last = _parse(text)
        if last.version != first.version:
            raise ValueError(f"{first}-{text} mixes two IP versions")
        return last
    if isinstance(first, IPv6Address) and re.fullmatch(r"[0-9a-fA-F]{1,4}", text):
        return IPv6Address(int(first) & ~0xFFFF | int(text, 16))
    if isinstance(first, IPv4Address) and re.fullmatch(r"[0-9]{1,3}", text) and int(text) < 256:
        return IPv4Address(int(first) & ~0xFF | int(text))
    raise ValueError(f"{text} cannot be the end of a range that begins with {first}")


def _prefix(text: str) -> list[Address]:
    try:
        network = IPv6Network(text) if ":" in text else IPv4Network(text)
    except ValueError:
        raise ValueError(f"{text} is not a prefix, or has host bits") from None
    _refuse_many(text, network.num_addresses)
    return [
        type(network.network_address)(int(network.network_address) + i) for i in range(network.num_addresses)
    ]


def _refuse_many(text: str, number: int) -> None:
    if number > MOST_ADDRESSES:
        raise ValueError(f"{text} has {number} addresses; at most {MOST_ADDRESSES} are written out")
