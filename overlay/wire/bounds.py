"""The possible values of a field of a message between agent and forwarder, declared in its type: ``Annotated[int,
between(0, 9)]``.

A check gets the value that was read from bytes, and returns it in the form of the message, or raises PacketError
``link``.  Types without bounds of their own, and lists and values made of others, need no check here: ``link.codec``
checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from overlay.errors import PacketError
from overlay.wire import flow_key
from overlay.wire.messages import COOKIE_REPLY, INITIATION, KEY_SIZE, RESPONSE

# Ours
NUMBERS = 2**63  # every number is smaller, so that sums of them do not overflow
NAME_CHARACTERS = 200  # of the name of a service, or the identity of a server
ROWS = 100  # of counters in one message; the forwarder sends far fewer at once
CONTROL_BYTES = 1200  # of an in-band message, so that it fits every path

Check: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Items:
    """For a list: it has from *least* to *most* items."""

    least: int
    most: int


def between(least: int, most: int) -> Check:
    """Return the check of an integer from *least* to *most*."""

    def check(value: Any) -> Any:
        if type(value) is not int or not least <= value <= most:
            raise PacketError("link")
        return value

    return check


def sized(sizes: Collection[int]) -> Check:
    """Return the check of bytes whose size is one of *sizes*."""

    def check(value: Any) -> Any:
        if type(value) is not bytes or len(value) not in sizes:
            raise PacketError("link")
        return value

    return check


def text(least: int, most: int) -> Check:
    """Return the check of printable text of *least* to *most* characters."""

    def check(value: Any) -> Any:
        if type(value) is not str or not least <= len(value) <= most or not value.isprintable():
            raise PacketError("link")
        return value

    return check


def prefix(*after: Check) -> Check:
    """Return the check of a packed address and a prefix length, followed by what *after* checks."""

    def check(value: Any) -> Any:
        if type(value) is not list or len(value) != 2 + len(after):
            raise PacketError("link")
        packed, length, *rest = value
        _address(packed)
        if type(length) is not int or not 0 <= length <= len(packed) * 8:
            raise PacketError("link")
        return (packed, length, *[each(item) for each, item in zip(after, rest, strict=True)])

    return check


_address = sized({4, 16})

UInt8: TypeAlias = Annotated[int, between(0, 0xFF)]
UInt16: TypeAlias = Annotated[int, between(0, 0xFFFF)]
UInt32: TypeAlias = Annotated[int, between(0, 0xFFFFFFFF)]
Mtu: TypeAlias = Annotated[int, between(1, 0xFFFF)]
Name: TypeAlias = Annotated[str, text(1, NAME_CHARACTERS)]
Key: TypeAlias = Annotated[bytes, sized({KEY_SIZE})]
Mac: TypeAlias = Annotated[bytes, sized({6})]
Address: TypeAlias = Annotated[bytes, _address]
Prefix: TypeAlias = Annotated[tuple[bytes, int], prefix()]
FlowKey: TypeAlias = Annotated[bytes, sized(flow_key.SIZES)]
Ports: TypeAlias = list[tuple[UInt16, UInt16]]
Control: TypeAlias = Annotated[bytes, sized(range(1, CONTROL_BYTES + 1))]
Datagram: TypeAlias = Annotated[bytes, sized({INITIATION.size, RESPONSE.size, COOKIE_REPLY.size})]
