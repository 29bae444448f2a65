"""Messages of the link as bytes: one msgpack array per packet, ``[number, field, ...]``.

The number is the position of the message in ``MESSAGES``; the type of each field, at the message, declares its possible
values.  Neither side trusts the other: decode() checks every field and raises PacketError for anything else.

The two greetings, ``Start`` and ``Ready``, are ``[number, VERSION, field, ...]``.  Their numbers and the position of
the version never change, so that each end can tell that the other is from another release, whatever else differs.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import msgpack

from overlay.errors import PacketError
from overlay.link.messages import VERSION, Command, Ready, Report, Start
from overlay.reasons import REASONS
from overlay.wire.bounds import NUMBERS, Items, between

if TYPE_CHECKING:
    from overlay.wire.bounds import Check

# Ours
MESSAGE_BYTES = 128 * 1024  # the largest message: 500 routes or 20 peers' counters stay far below
DESCRIPTORS = 253  # with one message, as many as the kernel takes (SCM_MAX_FD in linux/net/scm.h)
SECONDS = 2.0**40  # times are below this for 35,000 years, and no sum or product of them is infinite

GREETINGS = (Start, Ready)
MESSAGES: tuple[type, ...] = tuple(dict.fromkeys((*GREETINGS, *get_args(Command), *get_args(Report))))
"""All messages in the order of their numbers."""


class OtherVersionError(PacketError):
    """A greeting from an end with *version* of the link, which is not VERSION."""

    def __init__(self, version: int) -> None:
        super().__init__("link")
        self.version = version


def encode(message: Command | Report) -> bytes:
    """Return the bytes that decode() reads back into an equal value."""
    cls = type(message)
    packed: bytes = msgpack.packb([*_HEADS[cls], *_FORMATS[cls].values(message)], default=_plain)
    return packed


def decode(data: bytes | memoryview, longest: int = MESSAGE_BYTES) -> Command | Report:
    """Read one message.  Raises PacketError ``link``, and nothing else, for any bytes.

    For a greeting of another version it is an OtherVersionError.

    No list in it is longer than *longest*.  The decoder reserves room for as many items as a list claims to have, also
    for lists nested a thousand deep, before it reads the first.
    """
    try:
        parts = msgpack.unpackb(
            data,
            use_list=True,
            strict_map_key=False,
            max_ext_len=0,
            max_array_len=longest,
            max_map_len=len(REASONS),
        )
    # A TypeError for a list as a key
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise PacketError("link") from None
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int:
        raise PacketError("link")
    if not 0 <= parts[0] < len(MESSAGES):
        raise PacketError("link")
    cls = MESSAGES[parts[0]]
    if cls in GREETINGS:
        _check_version(parts[1:2])
        del parts[1]
    value: Command | Report = _FORMATS[cls].make(parts[1:])
    return value


def _check_version(found: list[Any]) -> None:
    if not found:
        raise PacketError("link")
    if _number(found[0]) != VERSION:
        raise OtherVersionError(found[0])


class _Format:
    """Writes values of the class *cls* as the list of their fields, and reads them."""

    def __init__(self, cls: type) -> None:
        fields = dataclasses.fields(cls)
        self._cls, self._names = cls, [field.name for field in fields]
        self._checks = [_check_of(field.type) for field in fields]

    def values(self, value: object) -> list[Any]:
        return [getattr(value, name) for name in self._names]

    def make(self, values: Any) -> Any:
        if type(values) is not list or len(values) != len(self._checks):
            raise PacketError("link")
        return self._cls(*[check(value) for check, value in zip(self._checks, values, strict=True)])


def _plain(value: object) -> object:
    return _FORMATS[type(value)].values(value)


# The possible values of types


def _check_of(declared: Any) -> Check:
    """Return the check for values of the type *declared*.  Raises TypeError for types that cannot travel."""
    if declared in _SCALARS:
        return _SCALARS[declared]
    origin, inner = get_origin(declared), get_args(declared)
    if origin is Annotated:
        declared, bound = inner
        return partial(_listed, bound, _check_of(*get_args(declared))) if isinstance(bound, Items) else bound
    if origin is list:
        return partial(_listed, None, _check_of(*inner))
    if origin is tuple:
        return partial(_row, [_check_of(each) for each in inner])
    if origin in {Union, UnionType} and len(inner) == 2 and inner[1] is NoneType:
        return partial(_optional, _check_of(inner[0]))
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        return _FORMATS.setdefault(declared, _Format(declared)).make
    raise TypeError(f"{declared} cannot be a field of a message")


def _optional(check: Check, value: Any) -> Any:
    return None if value is None else check(value)


def _listed(bound: Items | None, check: Check, value: Any) -> list[Any]:
    if type(value) is not list or (bound is not None and not bound.least <= len(value) <= bound.most):
        raise PacketError("link")
    return [check(item) for item in value]


def _row(checks: list[Check], value: Any) -> tuple[Any, ...]:
    if type(value) is not list or len(value) != len(checks):
        raise PacketError("link")
    return tuple([check(item) for check, item in zip(checks, value, strict=True)])


def _exactly(kind: type) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise PacketError("link")
        return value

    return check


def _counts(value: Any) -> dict[str, int]:
    """Accept drops by reason.  The reasons are shown to people, so they must be in the registry."""
    if type(value) is not dict or len(value) > len(REASONS):
        raise PacketError("link")
    for reason, count in value.items():
        if type(reason) is not str or reason not in REASONS:
            raise PacketError("link")
        _number(count)
    return value


def _seconds(value: Any) -> float:
    if type(value) not in {float, int} or not 0 <= value < SECONDS:
        raise PacketError("link")
    number: float = value
    return number


_number = between(0, NUMBERS - 1)
_SCALARS: dict[Any, Check] = {
    bool: _exactly(bool),
    str: _exactly(str),
    int: _number,
    float: _seconds,
    dict[str, int]: _counts,
}
_FORMATS: dict[type, _Format] = {}
for _cls in MESSAGES:
    _FORMATS[_cls] = _Format(_cls)
_HEADS = {cls: (number, VERSION) if cls in GREETINGS else (number,) for number, cls in enumerate(MESSAGES)}
