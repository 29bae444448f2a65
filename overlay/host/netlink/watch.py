"""Watching the host's network."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import refusal
from overlay.host.netlink.network_changes import NetworkChanges
from overlay.host.netlink.rtnetlink import (
    ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    LINK_ATTRIBUTES_OFFSET,
    NLM_F_REPLACE,
    RECEIVE_SIZE,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TABLE_OFFSET,
    ROUTE_TYPE_OFFSET,
    RT_TABLE_LOCAL,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTN_UNREACHABLE,
    read_attributes,
    read_number,
    split_messages,
)
from overlay.host.ownership import PROTOCOL
from overlay.host.sockets.bpf import EVERYTHING, SO_ATTACH_FILTER, attach, program
from overlay.linux import IFF_UP, JUMP_IF_EQUAL, LOAD_WORD, NETLINK_HEADER, RETURN

if TYPE_CHECKING:
    import array
    from collections.abc import Callable

# Specification: linux/rtnetlink.h
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE = 0x10, 0x40, 0x80
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_IPV6_RULE = 0x100, 0x400, 0x40000

# Ours
WATCHED = (
    RTMGRP_LINK
    | RTMGRP_IPV4_IFADDR
    | RTMGRP_IPV4_ROUTE
    | RTMGRP_IPV4_RULE
    | RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV6_ROUTE
    | RTMGRP_IPV6_RULE
)


# Offsets of fields, from the start of a message
LINK = struct.Struct("=4xiI")  # index, flags
PORT_OFFSET = 12  # of the socket whose request was carried out


class Watch:
    """Reports that the host's network changed, so that routes, source addresses and MTU should be checked again."""

    def __init__(
        self, own_port: int, own_index: int | None, is_as_wanted: Callable[[str, int], bool]
    ) -> None:
        """*is_as_wanted* tells whether our interface should have that name and MTU.

        The kernel leaves out what the netlink socket *own_port* changes: the notifications of 100,000 routes would not
        fit into the buffer of this socket, which would look like a loss.
        """
        self._own_port = own_port
        self._own_index = own_index
        self._is_as_wanted = is_as_wanted
        self._changes = NetworkChanges()
        self._has_moved = self._has_lost = self._has_touched = False
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        with contextlib.suppress(OSError):
            attach(self._socket, SO_ATTACH_FILTER, _all_but(own_port))
        try:
            self._socket.bind((0, WATCHED))
        except OSError as error:
            self._socket.close()
            raise refusal("changes of the host's network could not be watched", error) from error

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read the notifications; return whether any is about a change by somebody else.

        If there were too many at once, the kernel reports only that; then the answer is yes.
        """
        is_foreign = False
        while True:
            try:
                data = self._socket.recv(RECEIVE_SIZE)
            except BlockingIOError:
                return is_foreign
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refusal("changes of the host's network could not be watched", error) from error
                is_foreign = self._has_moved = self._has_lost = self._has_touched = True
            else:
                for message in split_messages(data):
                    if self._is_foreign(message):
                        is_foreign = True
                        self._has_moved |= self._changes.take(message)
                        self._has_lost |= self._is_loss(message)
                        self._has_touched |= self._may_touch_ours(message)

    def take_move(self) -> bool:
        """Return whether drain() has read of a change of addresses or default routes since the last call."""
        has_moved, self._has_moved = self._has_moved, False
        return has_moved

    def take_loss(self) -> bool:
        """Return whether drain() has read, since the last call, that somebody removed a route or rule that keeps
        packets from leaving unencrypted.
        """
        has_lost, self._has_lost = self._has_lost, False
        return has_lost

    def take_touched(self) -> bool:
        """Return whether drain() has read, since the last call, of a change by which routes of ours may be gone."""
        has_touched, self._has_touched = self._has_touched, False
        return has_touched

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def _is_loss(self, message: bytes) -> bool:
        """Return whether a rule is gone, or an `unreachable` route of an agent; other routes have one behind them."""
        kind = NETLINK_HEADER.unpack_from(message)[1]
        if kind != RTM_DELROUTE:
            return bool(kind == RTM_DELRULE)
        is_ours = message[ROUTE_PROTOCOL_OFFSET] == PROTOCOL
        return is_ours and message[ROUTE_TYPE_OFFSET] == RTN_UNREACHABLE

    def _may_touch_ours(self, message: bytes) -> bool:
        """Return whether a change by somebody else is one of our routes, or of the link or an address that they need.

        The kernel may remove IPv4 routes together with these, without a notification.
        """
        _, kind, flags, _, _ = NETLINK_HEADER.unpack_from(message)
        if kind in {RTM_NEWROUTE, RTM_DELROUTE}:  # what replaces a route may have another protocol
            return message[ROUTE_PROTOCOL_OFFSET] == PROTOCOL or bool(flags & NLM_F_REPLACE)
        if kind in {RTM_NEWLINK, RTM_DELLINK}:
            return bool(LINK.unpack_from(message, NETLINK_HEADER.size)[0] == self._own_index)
        if kind in {RTM_NEWADDR, RTM_DELADDR}:
            return bool(ADDRESS.unpack_from(message, NETLINK_HEADER.size)[4] == self._own_index)
        return False

    def _is_foreign(self, message: bytes) -> bool:
        _, kind, _, _, port = NETLINK_HEADER.unpack_from(message)
        if port == self._own_port:
            return False
        if kind in {RTM_NEWROUTE, RTM_DELROUTE}:  # those in the table local follow from addresses
            return message[ROUTE_TABLE_OFFSET] != RT_TABLE_LOCAL
        # The kernel reports the consequences of our changes of the tun without a port.
        if kind == RTM_NEWLINK:
            index, flags = LINK.unpack_from(message, NETLINK_HEADER.size)
            if index != self._own_index or not flags & IFF_UP:
                return True
            link = dict(read_attributes(message, LINK_ATTRIBUTES_OFFSET))
            name = link.get(IFLA_IFNAME, b"").partition(b"\0")[0].decode("utf-8", "replace")
            return not self._is_as_wanted(name, read_number(link.get(IFLA_MTU)))
        if kind == RTM_NEWADDR:
            return bool(ADDRESS.unpack_from(message, NETLINK_HEADER.size)[4] != self._own_index)
        return True


def _all_but(port: int) -> array.array[int]:
    """Return the filter that passes all notifications except those of changes by the netlink socket *port*."""
    return program(
        (LOAD_WORD, 0, 0, PORT_OFFSET),
        (JUMP_IF_EQUAL, 0, 1, socket.htonl(port)),  # numbers are loaded in network byte order
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, EVERYTHING),
    )
