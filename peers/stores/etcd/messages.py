"""Requests to etcd and its answers, as values: the JSON of its gateway and nothing else.

Keys and values are base64; 64-bit numbers are strings; what is zero, false or empty is left out.  An answer is checked
in full before any of it is used, so that half of one is never taken for the whole.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from peers.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Json: TypeAlias = "dict[str, Any]"

# Specification: codes of gRPC (google.rpc.Code)
INVALID, NOT_FOUND, FORBIDDEN, PRECONDITION, UNAVAILABLE, UNAUTHENTICATED = 3, 5, 7, 9, 14, 16

# Ours
SHOWN_SIZE = 200  # characters of what an etcd said, in a sentence


class Cause(enum.Enum):
    """Why a call failed, by who must act."""

    AWAY = "away"  # perhaps no one: it is tried again
    TLS = "tls"  # certificates do not fit
    LOGIN = "login"  # user or password is wrong or missing
    FORBIDDEN = "forbidden"  # the user may not do this
    GARBLED = "garbled"  # it is not an etcd, or not one that we know
    REFUSED = "refused"  # etcd did not like the call itself
    GONE = "gone"  # the lease is


class GatewayError(StoreError):
    """A call that failed.  The text is one sentence with the etcd, what happened and a remedy."""

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause

    @property
    def is_lasting(self) -> bool:
        """Whether a person must act, and no time mends it."""
        return self.cause in {Cause.TLS, Cause.LOGIN, Cause.FORBIDDEN, Cause.GARBLED}


class GarbledError(Exception):
    """An answer that is not one of etcd's.  The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Header:
    """Of every answer: which cluster said it, and the *revision* of the whole store at that moment."""

    cluster: int
    revision: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it is, or was.  Revisions are those of its creation and last change; *lease* is 0 without one."""

    key: bytes
    value: bytes
    created: int = 0
    modified: int = 0
    version: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A key that changed; of one that *is_deleted*, only its name and the revision are known."""

    kv: KeyValue
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys of a range, as they were at the revision in the header."""

    header: Header
    kvs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What became of a transaction: whether its comparisons held, and what its ranges found, in their order."""

    header: Header
    succeeded: bool
    found: tuple[tuple[KeyValue, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that ends after *seconds* without a keepalive.  Where *seconds* is 0 there is none of that number."""

    header: Header
    number: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One line of a watch.

    With *compacted*, a revision, the watch began before it and has ended; with *canceled* it has ended for *reason*.
    """

    header: Header
    events: tuple[Event, ...] = ()
    is_created: bool = False
    canceled: bool = False
    compacted: int = 0
    reason: str = ""


# Requests


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds if the *target* of *key*, ``VERSION``, ``CREATE`` or ``MOD``, is *number*; version 0 is an absent key."""

    key: bytes
    target: str
    number: int

    def build(self) -> Json:
        """Return it as JSON."""
        field = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision"}[self.target]
        return {"key": encode(self.key), "target": self.target, "result": "EQUAL", field: str(self.number)}


def is_absent(key: bytes) -> Compare:
    """Return what holds if there is no *key*."""
    return Compare(key, "VERSION", 0)


def is_unchanged(key: bytes, modified: int) -> Compare:
    """Return what holds if *key* was last changed at the revision *modified*; 0 if it is absent."""
    return Compare(key, "MOD", modified)


@dataclass(frozen=True, slots=True)
class Put:
    """Writes *value*; the key ends with the *lease*."""

    key: bytes
    value: bytes
    lease: int = 0

    def build(self) -> Json:
        """Return it as JSON."""
        return {
            "request_put": {"key": encode(self.key), "value": encode(self.value), "lease": str(self.lease)}
        }


@dataclass(frozen=True, slots=True)
class Get:
    """Asks for *key*, or for all from it to before *end*."""

    key: bytes
    end: bytes = b""

    def build(self) -> Json:
        """Return it as JSON."""
        return {"request_range": key_range(self.key, self.end)}


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes *key*, or all from it to before *end*."""

    key: bytes
    end: bytes = b""

    def build(self) -> Json:
        """Return it as JSON."""
        return {"request_delete_range": key_range(self.key, self.end)}


Operation: TypeAlias = Put | Get | Delete


def transaction(
    compares: Iterable[Compare], success: Iterable[Operation], failure: Iterable[Operation]
) -> Json:
    """Return the body of a transaction."""
    return {
        "compare": [each.build() for each in compares],
        "success": [each.build() for each in success],
        "failure": [each.build() for each in failure],
    }


def key_range(key: bytes, end: bytes = b"") -> Json:
    """Return what names *key*, or all from it to before *end*."""
    return {"key": encode(key), **({"range_end": encode(end)} if end else {})}


def page(key: bytes, end: bytes, most: int, revision: int = 0) -> Json:
    """Return what asks for the first *most* keys of a range, as they were at a *revision*; as they are, for 0."""
    return {**key_range(key, end), "limit": str(most), **({"revision": str(revision)} if revision else {})}


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with *prefix*."""
    assert prefix
    assert prefix[-1] < 0xFF
    return prefix[:-1] + bytes([prefix[-1] + 1])


def encode(data: bytes) -> str:
    """Return *data* in base64, as JSON has bytes."""
    return base64.b64encode(data).decode("ascii")


# What is answered; each raises GarbledError, and nothing else, for any bytes or JSON


def parse_object(data: bytes) -> Json:
    """Return the JSON object in *data*; a second one behind it, as a gateway appends to errors, does not count."""
    try:
        value, _ = json.JSONDecoder().raw_decode(data.decode("utf-8").lstrip())
    except (ValueError, RecursionError):
        raise GarbledError("it is not JSON") from None
    if not isinstance(value, dict):
        raise GarbledError("it is not a JSON object")
    return value


def parse_header(answer: Json) -> Header:
    """Return the header of *answer*."""
    header = _object(answer, "header")
    return Header(_number(header, "cluster_id", signed=False), _number(header, "revision"))


def parse_page(answer: Json) -> tuple[Listing, bool]:
    """Return keys from the beginning of a range, and whether there are more.  What was cut short is refused."""
    kvs, has_more = _kvs(answer), answer.get("more") is True
    count = _number(answer, "count")
    if (count <= len(kvs) or not kvs) if has_more else count != len(kvs):
        raise GarbledError("the listing is not complete")
    return Listing(parse_header(answer), kvs), has_more


def parse_outcome(answer: Json) -> TransactionResult:
    """Return the result of a transaction."""
    found = []
    for response in _list(answer, "responses"):
        if not isinstance(response, dict):
            raise GarbledError("a response is not an object")
        if "response_range" in response:
            found.append(_kvs(_object(response, "response_range")))
    return TransactionResult(parse_header(answer), answer.get("succeeded") is True, tuple(found))


def parse_lease(answer: Json) -> Lease:
    """Return what was granted, or how long a lease lives on; of one that is gone, 0 seconds."""
    return Lease(parse_header(answer), _number(answer, "ID"), max(0, _number(answer, "TTL")))


def parse_line(line: bytes) -> Json:
    """Return the result in one line of a stream.  Raises CallRefusedError for an error in it, as of a call."""
    value = parse_object(line)
    if "error" in value:
        raise refusal_in(value)
    return _object(value, "result")


def parse_notice(result: Json) -> Notice:
    """Return what one line of a watch tells."""
    events = []
    for event in _list(result, "events"):
        if not isinstance(event, dict):
            raise GarbledError("an event is not an object")
        events.append(Event(_kv(_object(event, "kv")), event.get("type") == "DELETE"))
    return Notice(
        parse_header(result),
        tuple(events),
        result.get("created") is True,
        result.get("canceled") is True,
        _number(result, "compact_revision"),
        _text(result, "cancel_reason"),
    )


class CallRefusedError(Exception):  # what a person reads is the GatewayError made from it
    """What etcd said in place of an answer: a *code* of gRPC, 0 if none, and a *message*."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def refusal_in(answer: Mapping[str, Any]) -> CallRefusedError:
    """Return the error in *answer*, of a call or of a stream, of any release."""
    inner = answer.get("error")
    held: Mapping[str, Any] = inner if isinstance(inner, dict) else answer
    code = held.get("grpc_code", held.get("code"))
    message = held.get("message", inner if isinstance(inner, str) else None)
    text = message if isinstance(message, str) else ""
    shown = "".join(character if character.isprintable() else "?" for character in text[:SHOWN_SIZE])
    return CallRefusedError(code if isinstance(code, int) else 0, shown)


def _kvs(answer: Json) -> tuple[KeyValue, ...]:
    kvs = []
    for kv in _list(answer, "kvs"):
        if not isinstance(kv, dict):
            raise GarbledError("a key is not an object")
        kvs.append(_kv(kv))
    return tuple(kvs)


def _kv(kv: Json) -> KeyValue:
    return KeyValue(
        _bytes(kv, "key"),
        _bytes(kv, "value"),
        _number(kv, "create_revision"),
        _number(kv, "mod_revision"),
        _number(kv, "version"),
        _number(kv, "lease"),
    )


def _object(answer: Json, name: str) -> Json:
    value = answer.get(name, {})
    if not isinstance(value, dict):
        raise GarbledError(f"{name} is not an object")
    return value


def _list(answer: Json, name: str) -> list[Any]:
    value = answer.get(name, [])
    if not isinstance(value, list):
        raise GarbledError(f"{name} is not an array")
    return value


def _text(answer: Json, name: str) -> str:
    value = answer.get(name, "")
    if not isinstance(value, str):
        raise GarbledError(f"{name} is not a text")
    return value[:SHOWN_SIZE]


def _number(answer: Json, name: str, *, signed: bool = True) -> int:
    value = answer.get(name, 0)
    if (
        isinstance(value, str)
        and len(value) <= 20
        and value.removeprefix("-").isdecimal()
        and value.isascii()
    ):
        value = int(value)
    least, most = (-(2**63), 2**63 - 1) if signed else (0, 2**64 - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise GarbledError(f"{name} is not a number of 64 bits")
    return value


def _bytes(answer: Json, name: str) -> bytes:
    try:
        return base64.b64decode(_string(answer, name), validate=True)
    except (binascii.Error, ValueError):
        raise GarbledError(f"{name} is not base64") from None


def _string(answer: Json, name: str) -> str:
    value = answer.get(name, "")
    if not isinstance(value, str):
        raise GarbledError(f"{name} is not a text")
    return value
