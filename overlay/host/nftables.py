"""An nftables table made by netlink, without a program: enough to drop packets that this host sends, by a few of their
bytes.

If the kernel supports owners (since Linux 5.12), the table belongs to the socket that made it: it disappears with that
socket, however the process ends, and `nft flush ruleset` leaves it.  Messages travel in batches, which are applied as a
whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from overlay.linux import (
    ATTRIBUTE,
    ERROR_CODE,
    NETLINK_HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Specification: linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
# Attributes hold numbers in network byte order; headers have the order of the host.
GENERIC_HEADER = struct.Struct("!BBH")  # family, version, resource
NUMBER = struct.Struct("!I")
NLM_F_APPEND = 0x800
NESTED = 0x8000
SUBSYSTEM = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE = (SUBSYSTEM << 8 | kind for kind in (0, 2, 3, 6))
UNSPECIFIED, INET = 0, 1  # families; the latter is IPv4 and IPv6 both
TABLE_NAME, TABLE_FLAGS = 1, 2
OWNER = 0x2
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
LOCAL_OUT, FILTER_PRIORITY = 3, 0
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS = 1, 2, 4
LIST_ELEMENT, EXPRESSION_NAME, EXPRESSION_DATA = 1, 1, 2
META_DESTINATION, META_KEY, META_L4_PROTOCOL = 1, 2, 16
PAYLOAD_DESTINATION, PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 1, 2, 3, 4
TRANSPORT_HEADER = 2
COMPARE_SOURCE, COMPARE_OPERATION, COMPARE_DATA, EQUAL = 1, 2, 3, 0
IMMEDIATE_DESTINATION, IMMEDIATE_DATA = 1, 2
DATA_VALUE, DATA_VERDICT, VERDICT_CODE = 1, 2, 1
VERDICT_REGISTER, REGISTER = 0, 1
DROP, ACCEPT = 0, 1

# Ours
CHAIN = "output"
PATIENCE = 10.0  # seconds; the kernel answers at once, or is broken
RECEIVE_SIZE = 64 * 1024


class HeaderMatch(NamedTuple):
    """What a packet of the protocol *protocol* has in its header: pairs of an offset in bytes and the bytes there."""

    protocol: int
    fields: tuple[tuple[int, bytes], ...]


def remove_table(name: str) -> None:
    """Remove the table *name* of the family inet, if there is one.  Raises OSError."""
    table = _text(TABLE_NAME, name)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as kernel:
        kernel.settimeout(PATIENCE)
        kernel.bind((0, 0))
        _say(kernel, [_message(NEW_TABLE, NLM_F_CREATE, table), _message(DELETE_TABLE, NLM_F_ACK, table)])


class DropTable:
    """A table that, while it is open, drops packets of this host that fit any of *matches*."""

    def __init__(self, name: str, matches: Iterable[HeaderMatch]) -> None:
        """Make the table, for at least one match, in place of one with its name that a killed process left.  Raises
        OSError.
        """
        self._name, rules = name, list(matches)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.bind((0, 0))
            try:
                _say(self._socket, _table(name, rules, OWNER))
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                    raise
                _say(self._socket, _table(name, rules, 0))  # a kernel without owners
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Remove the table, unless somebody else has."""
        with self._socket, contextlib.suppress(OSError):
            _say(self._socket, [_message(DELETE_TABLE, NLM_F_ACK, _text(TABLE_NAME, self._name))])


def _say(kernel: socket.socket, messages: Sequence[bytes]) -> None:
    """Carry out *messages* as one batch.  Raises OSError."""
    kernel.send(b"".join((_bracket(BATCH_BEGIN), *messages, _bracket(BATCH_END))))
    while True:
        # Refusals come first, then the acknowledgement of the last message, the only one that asks for it.
        data = kernel.recv(RECEIVE_SIZE)
        _, kind, *_ = NETLINK_HEADER.unpack_from(data)
        if kind != NLMSG_ERROR:
            continue
        (code,) = ERROR_CODE.unpack_from(data, NETLINK_HEADER.size)
        if code:
            raise OSError(-code, os.strerror(-code))
        return


def _table(name: str, rules: Iterable[HeaderMatch], flags: int) -> list[bytes]:
    """Return the messages that make the table, with one chain, in place of a table with its name."""
    hook = _number(HOOK_NUMBER, LOCAL_OUT) + _number(HOOK_PRIORITY, FILTER_PRIORITY)
    chain = _text(CHAIN_TABLE, name) + _text(CHAIN_NAME, CHAIN) + _nest(CHAIN_HOOK, hook)
    chain += _number(CHAIN_POLICY, ACCEPT) + _text(CHAIN_TYPE, "filter")
    *made, last = (_rule(name, each) for each in rules)
    return [
        _message(NEW_TABLE, NLM_F_CREATE, _text(TABLE_NAME, name)),  # so that there is a table to delete
        _message(DELETE_TABLE, 0, _text(TABLE_NAME, name)),
        _message(NEW_TABLE, NLM_F_CREATE, _text(TABLE_NAME, name) + _number(TABLE_FLAGS, flags)),
        _message(NEW_CHAIN, NLM_F_CREATE, chain),
        *(_message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, each) for each in made),
        _message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, last),
    ]


def _rule(table: str, match: HeaderMatch) -> bytes:
    """Return the attributes of the rule that drops packets that fit *match*."""
    protocol = _number(META_DESTINATION, REGISTER) + _number(META_KEY, META_L4_PROTOCOL)
    expressions = [_expression("meta", protocol), _compare(bytes([match.protocol]))]
    for offset, value in match.fields:
        place = _number(PAYLOAD_DESTINATION, REGISTER) + _number(PAYLOAD_BASE, TRANSPORT_HEADER)
        place += _number(PAYLOAD_OFFSET, offset) + _number(PAYLOAD_LENGTH, len(value))
        expressions += [_expression("payload", place), _compare(value)]
    verdict = _nest(IMMEDIATE_DATA, _nest(DATA_VERDICT, _number(VERDICT_CODE, DROP)))
    expressions += [
        _expression("counter", b""),
        _expression("immediate", _number(IMMEDIATE_DESTINATION, VERDICT_REGISTER) + verdict),
    ]
    return (
        _text(RULE_TABLE, table)
        + _text(RULE_CHAIN, CHAIN)
        + _nest(RULE_EXPRESSIONS, b"".join(_nest(LIST_ELEMENT, each) for each in expressions))
    )


def _expression(name: str, data: bytes) -> bytes:
    return _text(EXPRESSION_NAME, name) + _nest(EXPRESSION_DATA, data)


def _compare(value: bytes) -> bytes:
    """Return the expression that continues if the register has *value*."""
    data = _number(COMPARE_SOURCE, REGISTER) + _number(COMPARE_OPERATION, EQUAL)
    return _expression("cmp", data + _nest(COMPARE_DATA, _attribute(DATA_VALUE, value)))


def _message(kind: int, flags: int, attributes: bytes, family: int = INET, resource: int = 0) -> bytes:
    body = GENERIC_HEADER.pack(family, 0, resource) + attributes
    return NETLINK_HEADER.pack(NETLINK_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def _bracket(kind: int) -> bytes:
    """Return the message that begins a batch, or ends one."""
    return _message(kind, 0, b"", UNSPECIFIED, SUBSYSTEM)


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, NUMBER.pack(value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, value)
