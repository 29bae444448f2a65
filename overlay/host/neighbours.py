"""Addresses that this host has for the others on an Ethernet link, though none of its interfaces has them.

The process answers who asks for them (ARP, neighbour solicitations), and announces them.  The kernel's proxy entries
would do the former, but they outlive a killed process, and for IPv6 the kernel goes on to answer by them whatever its
routes say: two directors would then claim one address.  They also need forwarding and ``proxy_ndp``, and answer up to
``proxy_delay`` late.

The kernel drops what asks for other addresses before the process is woken.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from overlay.errors import HostError, PacketError
from overlay.host import advice, sysctl
from overlay.host.bpf import SO_ATTACH_FILTER, attach
from overlay.host.neighbour_filters import ETHERTYPES, PACKET_OTHERHOST, PACKET_OUTGOING, questions_for
from overlay.host.privileges import Capability
from overlay.wire.neighbours import SOLICITED_NODE, Question, announcement

if TYPE_CHECKING:
    from collections.abc import Collection

    from overlay.host.netlink.lan_interfaces import Interface

# Specification: linux/in6.h
MEMBERSHIP = struct.Struct("=16sI")  # struct ipv6_mreq: group, index of the interface

# Ours
LARGEST = 2048  # bytes of a frame
BATCH = 32  # questions in one turn; more wait, and many more are lost


class Neighbours:
    """Sockets on one link; they tell those on it that *addresses* of one family, of 4 or 16 bytes, are here."""

    def __init__(self, interface: Interface, version: int) -> None:
        """Open the sockets of *interface*, which is an Ethernet; no address is here yet.  Raises HostError."""
        assert interface.mac is not None
        self.interface, self.version, self.mac = interface, version, interface.mac
        self.addresses: frozenset[bytes] = frozenset()
        self._groups: set[bytes] = set()  # of multicast, that solicitations for the addresses go to
        self._member: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
        except PermissionError as error:
            raise HostError(
                f"neighbours on {interface.name} cannot be answered: {advice.gain(Capability.NET_RAW)}"
            ) from error
        try:
            attach(self._socket, SO_ATTACH_FILTER, questions_for(version, ()))
            self._socket.bind((interface.name, ETHERTYPES[version]))
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"neighbours on {interface.name} cannot be answered: {advice.with_reason(error)}"
            ) from error

    @property
    def is_open(self) -> bool:
        """Whether close() was not called yet."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """Return the descriptor to wait on, until answer() is to be called."""
        return self._socket.fileno()

    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        """Answer for *addresses* from now on, and no others.  Raises HostError, with as many answered as can be."""
        if addresses == self.addresses:
            return
        self.addresses = addresses
        try:
            attach(self._socket, SO_ATTACH_FILTER, questions_for(self.version, addresses))
            if self.version == 6:
                self._join({SOLICITED_NODE + address[13:] for address in addresses})
        except OSError as error:
            raise HostError(
                f"neighbours on {self.interface.name} cannot all be answered: {advice.with_reason(error)}"
            ) from error

    def answer(self) -> bool:
        """Answer what was asked; return whether more may wait."""
        for _ in range(BATCH):
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(LARGEST)
            except OSError:  # nothing more, or the link is down
                return False
            if kind in {PACKET_OTHERHOST, PACKET_OUTGOING}:
                continue
            with contextlib.suppress(PacketError, OSError):
                question = Question.parse(frame)
                # One who asks from the address itself claims it, as a director that gives it up or takes it does.
                if question.target in self.addresses and question.source != question.target:
                    self._socket.send(question.answer(self.mac))
        return True

    def announce(self, addresses: Collection[bytes], times: int) -> None:
        """Tell everybody on the link *times* times that *addresses* are here; what the link refuses is lost."""
        is_router = bool(sysctl.read(f"ipv6/conf/{self.interface.name}/forwarding"))
        for _ in range(times):
            for address in addresses:
                with contextlib.suppress(OSError):
                    self._socket.send(announcement(address, self.mac, is_router=is_router))

    def close(self) -> None:
        """Answer nothing any more."""
        if self._member is not None:
            self._member.close()
        self._socket.close()

    def _join(self, groups: set[bytes]) -> None:
        """Take part in these multicast groups alone.  The kernel tells switches, and has the interface listen."""
        if self._member is None and groups:
            self._member = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        if self._member is None:
            return
        for group in self._groups - groups:
            with contextlib.suppress(OSError):  # the interface may be gone
                self._member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, self._request(group))
            self._groups.discard(group)
        for group in groups - self._groups:
            self._member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, self._request(group))
            self._groups.add(group)

    def _request(self, group: bytes) -> bytes:
        return MEMBERSHIP.pack(group, self.interface.index)
