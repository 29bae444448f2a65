"""Addresses that this host answers for on an Ethernet link although none of its interfaces has them.

The process answers requests for them (ARP, neighbour solicitations), and announces them.  The kernel's proxy entries
would do the former, but they outlive a killed process, and for IPv6 the kernel continues to answer with them whatever
its routes say: two directors would then claim one address.  They also need forwarding and ``proxy_ndp``, and answer up
to ``proxy_delay`` late.

The kernel drops requests for other addresses before the process is woken.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.host import sysctl
from overlay.host.sockets.neighbour_filters import PACKET_OTHERHOST, PACKET_OUTGOING, questions_for
from overlay.host.sockets.packet_socket import PacketSocket
from overlay.wire.neighbours import SOLICITED_NODE, Question, announcement

if TYPE_CHECKING:
    from collections.abc import Collection

    from overlay.host.netlink.lan_interfaces import Interface

# Specification: linux/in6.h
MEMBERSHIP = struct.Struct("=16sI")  # struct ipv6_mreq: group, index of the interface

# Ours
BATCH = 32  # questions in one turn; more wait, and far more are lost


class Neighbours(PacketSocket):
    """Sockets on one link that tell the hosts on it that *addresses* of one family are here."""

    def __init__(self, interface: Interface, version: int) -> None:
        """Open the sockets of *interface*, which is an Ethernet; there is no address yet.  Raises HostError."""
        failed = f"neighbours on {interface.name} do not get answers"
        super().__init__(interface, version, questions_for(version, ()), failed)
        self._groups: set[bytes] = set()  # multicast groups to which solicitations for the addresses go
        self._member: socket.socket | None = None

    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        """Answer for *addresses* from now on, and no others.  Raises HostError, after taking as many as possible."""
        if addresses == self.addresses:
            return
        self.addresses = addresses
        try:
            self._hear(questions_for(self.version, addresses))
            if self.version == 6:
                self._join({SOLICITED_NODE + address[13:] for address in addresses})
        except OSError as error:
            raise self._error(error) from error

    def answer(self) -> bool:
        """Answer the questions that arrived; return whether more may wait."""
        left = BATCH
        for frame, kind in self._frames(BATCH):
            left -= 1
            if kind in {PACKET_OTHERHOST, PACKET_OUTGOING}:
                continue
            with contextlib.suppress(PacketError, OSError):
                question = Question.parse(frame)
                # A request from the address itself claims it, as when a director takes it over or gives it up.
                if question.target in self.addresses and question.source != question.target:
                    self._socket.send(question.answer(self.mac))
        return not left

    def announce(self, addresses: Collection[bytes], times: int) -> None:
        """Announce *times* times to the whole link that *addresses* are here; what the link refuses is lost."""
        is_router = bool(sysctl.read(f"ipv6/conf/{self.interface.name}/forwarding"))
        for _ in range(times):
            for address in addresses:
                with contextlib.suppress(OSError):
                    self._socket.send(announcement(address, self.mac, is_router=is_router))

    def close(self) -> None:
        """Stop answering."""
        if self._member is not None:
            self._member.close()
        super().close()

    def _join(self, groups: set[bytes]) -> None:
        """Be a member of exactly these multicast groups.  The kernel tells switches, and makes the interface listen."""
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
