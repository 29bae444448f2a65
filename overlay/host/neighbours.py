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
from overlay.host.bpf import EVERYTHING, LOAD_BYTE, LOAD_HALF, SO_ATTACH_FILTER, attach, program
from overlay.host.privileges import Capability
from overlay.linux import JUMP_IF_EQUAL, LOAD_WORD, RETURN
from overlay.wire.ethernet import ARP_REQUEST, ETHERTYPE_ARP, ETHERTYPE_IPV6, ND_SOLICITATION
from overlay.wire.ip import PROTOCOL_ICMPV6
from overlay.wire.neighbours import Question, announcement

if TYPE_CHECKING:
    import array
    from collections.abc import Collection

    from overlay.host.netlink.lan_interfaces import Interface

# Specification: linux/if_packet.h, linux/in6.h
PACKET_OTHERHOST, PACKET_OUTGOING = 3, 4
ETHERTYPES = {4: ETHERTYPE_ARP, 6: ETHERTYPE_IPV6}
MEMBERSHIP = struct.Struct("=16sI")  # struct ipv6_mreq: group, index of the interface
# Where a field stands in the frame
ARP_OPERATION_OFFSET, ARP_TARGET_OFFSET = 20, 38
ND_NEXT_HEADER_OFFSET, ND_TYPE_OFFSET, ND_TARGET_OFFSET = 20, 54, 62
SOLICITED_NODE = bytes.fromhex(
    "ff02000000000000 00000001ff"
)  # RFC 4291 section 2.7.1, before the last 3 bytes

# Ours
LARGEST = 2048  # bytes of a frame
BATCH = 32  # questions in one turn; more wait, and many more are lost
MOST_INSTRUCTIONS = (
    512  # beyond it, the process sorts out who is asked for; the kernel would lend no memory for more
)


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
            attach(self._socket, SO_ATTACH_FILTER, _filter(version, ()))
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
            attach(self._socket, SO_ATTACH_FILTER, _filter(self.version, addresses))
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


def _filter(version: int, addresses: Collection[bytes]) -> array.array[int]:
    """Return a program that lets questions for *addresses* pass."""
    if version == 4:
        head = [(LOAD_HALF, 0, 0, ARP_OPERATION_OFFSET), (JUMP_IF_EQUAL, 1, 0, ARP_REQUEST), _DROP]
        at = ARP_TARGET_OFFSET
    else:
        head = [
            (LOAD_BYTE, 0, 0, ND_NEXT_HEADER_OFFSET),
            (JUMP_IF_EQUAL, 1, 0, PROTOCOL_ICMPV6),
            _DROP,
            (LOAD_BYTE, 0, 0, ND_TYPE_OFFSET),
            (JUMP_IF_EQUAL, 1, 0, ND_SOLICITATION),
            _DROP,
        ]
        at = ND_TARGET_OFFSET
    body = [step for address in sorted(addresses) for step in _is_address(address, at)]
    if len(body) > MOST_INSTRUCTIONS:
        return program(*head, _KEEP)
    return program(*head, *body, _DROP)


_DROP, _KEEP = (RETURN, 0, 0, 0), (RETURN, 0, 0, EVERYTHING)


def _is_address(address: bytes, at: int) -> list[tuple[int, int, int, int]]:
    """Return the steps that keep a frame with *address* at the offset *at*, and go on behind themselves with others."""
    steps = []
    for offset in range(0, len(address), 4):
        left = 2 * (len(address) - offset) // 4 - 1  # steps from behind this comparison to the end
        word = int.from_bytes(address[offset : offset + 4], "big")
        steps += [(LOAD_WORD, 0, 0, at + offset), (JUMP_IF_EQUAL, 0, left, word)]
    return [*steps, _KEEP]
