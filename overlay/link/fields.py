"""What the fields of messages on the link may hold: each kind returns a value as the message has it, or refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from overlay.errors import PacketError
from overlay.link.service_messages import VIRTUAL
from overlay.reasons import REASONS
from overlay.wire.addresses import pack_host
from overlay.wire.messages import COOKIE_REPLY, INITIATION, KEY_SIZE, RESPONSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.wire.addresses import Sockaddr

# Ours
SECONDS = 2.0**40  # every time is below, in 35,000 years; so that no sum or product of times is infinite
NUMBERS = 2**63  # every number is below: what sums of them are counted in
NOTE_CHARACTERS = 500  # of a sentence on what the forwarder could not do
HOST_CHARACTERS = 64  # an IPv6 address with the name of an interface
CONTROL_BYTES = 1200  # of an in-band message, so that every path takes it whole
NAME_CHARACTERS = 200  # of a service, or the identity of a server

Kind: TypeAlias = "Callable[[Any], Any]"
"""What a field may hold: returns the value as the message has it, or raises PacketError."""


def exactly(*types: type) -> Kind:
    def check(value: Any) -> Any:
        if type(value) not in types:
            raise PacketError("link")
        return value

    return check


def optional(check: Kind) -> Kind:
    return lambda value: None if value is None else check(value)


def listed(check: Kind, most: int | None = None) -> Kind:
    def check_all(value: Any) -> Any:
        if type(value) is not list or (most is not None and len(value) > most):
            raise PacketError("link")
        return [check(item) for item in value]

    return check_all


def row(*checks: Kind) -> Kind:
    def check_row(value: Any) -> Any:
        if type(value) is not list or len(value) != len(checks):
            raise PacketError("link")
        return tuple(check(item) for check, item in zip(checks, value, strict=True))

    return check_row


def row_list(check: Kind, size: int) -> Kind:
    check_row = row(*[check] * size)
    return lambda value: list(check_row(value))


def sockaddr(value: Any) -> Sockaddr:
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


def counts(value: Any) -> dict[str, int]:
    """Accept what was dropped by reason.  The reasons are told to people, so they are those that the registry knows."""
    if type(value) is not dict or len(value) > len(REASONS):
        raise PacketError("link")
    for reason, count in value.items():
        if type(reason) is not str or reason not in REASONS:
            raise PacketError("link")
        number(count)
    return value


def sentence(value: Any) -> str:
    if type(value) is not str or len(value) > NOTE_CHARACTERS or not value.isprintable():
        raise PacketError("link")
    return value


def number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < NUMBERS:
        raise PacketError("link")
    return value


def between(least: int, most: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not least <= number(value) <= most:
            raise PacketError("link")
        return value

    return check


def number_of_route(value: Any) -> int:
    return VIRTUAL if value == VIRTUAL and type(value) is int else number(value)


def short(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= NAME_CHARACTERS or not value.isprintable():
        raise PacketError("link")
    return value


def seconds(value: Any) -> float:
    if type(value) not in {float, int} or not 0 <= value < SECONDS:
        raise PacketError("link")
    number: float = value
    return number


def sized(*sizes: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not bytes or len(value) not in sizes:
            raise PacketError("link")
        return value

    return check


def up_to(size: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not bytes or not 0 < len(value) <= size:
            raise PacketError("link")
        return value

    return check


def prefixes(*after: Callable[[Any], Any]) -> Callable[[Any], Any]:
    check_row = row(sized(4, 16), number, *after)

    def check(value: Any) -> Any:
        rows = listed(check_row)(value)
        if any(row[1] > len(row[0]) * 8 for row in rows):
            raise PacketError("link")
        return rows

    return check


FLAG = exactly(bool)
NAME = exactly(str)
PEER = COUNT = BYTES = IDENTIFIER = number  # without bounds of their own
KEY = sized(KEY_SIZE)
INDEX = between(0, 2**32 - 1)
UINT8 = between(0, 0xFF)
PORT = between(0, 0xFFFF)
MTU = between(1, 0xFFFF)
FAMILIES = listed(number)
MAC = sized(6)
MACS = listed(MAC)
ADDRESS = sized(4, 16)
PORTS = listed(row(PORT, PORT))
UINT32 = between(0, 2**32 - 1)
ADDRESSES = listed(sized(4, 16))
CONTROL = up_to(CONTROL_BYTES)
DATAGRAM = sized(INITIATION.size, RESPONSE.size, COOKIE_REPLY.size)
