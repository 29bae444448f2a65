"""The raw sockets of VRRP (RFC 9568 section 5): one for each virtual router and IP version.

Before the process is woken, the kernel drops advertisements of other virtual routers, and for a multicast group also
those that a router has forwarded and those not sent to the group.  A host that is not on the link cannot send any.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from overlay.errors import HostError, PacketError
from overlay.host import advice
from overlay.host.process.privileges import Capability
from overlay.host.sockets.bpf import (
    EVERYTHING,
    LOAD_BYTE,
    LOAD_BYTE_BEHIND,
    LOAD_HEADER_SIZE,
    NETWORK_HEADER,
    SO_ATTACH_FILTER,
    attach,
    program,
)
from overlay.linux import IP_PKTINFO, JUMP_IF_EQUAL, LOAD_WORD, RETURN
from overlay.wire.vrrp import GROUP_IPV4, GROUP_IPV6, PROTOCOL_VRRP, TTL

if TYPE_CHECKING:
    import array
    from collections.abc import Collection

    from overlay.host.plan import IPAddress

# Specification: linux/in.h, linux/in6.h
IP_MULTICAST_ALL, IPV6_MULTICAST_ALL = 49, 29
MULTICAST_REQUEST = struct.Struct("=4s4si")  # struct ip_mreqn: group, own address, index
MEMBERSHIP_REQUEST = struct.Struct("=16si")  # struct ipv6_mreq: group, index
SOURCE_IPV4 = struct.Struct("=i4s4x")  # struct in_pktinfo: index, own address
SOURCE_IPV6 = struct.Struct("=16si")  # struct in6_pktinfo: own address, index
LIMIT = struct.Struct("=i")
INTERNETWORK_CONTROL = 0xC0  # RFC 791; the same value as keepalived's
GROUPS = {4: GROUP_IPV4, 6: GROUP_IPV6}
VRID_OFFSET = 1  # offset in an advertisement
# Offsets in the IP header
TTL_OFFSET = {4: 8, 6: 7}
DESTINATION_OFFSET = {4: 16, 6: 24}

# Ours
LARGEST = 8192  # bytes; 255 IPv6 addresses take half of it
CONTROL_SIZE = 256  # bytes


@dataclass(frozen=True, slots=True)
class ReceivedAdvertisement:
    """What came from *source* to *destination*, of 4 or 16 bytes each; *ttl* is the value on arrival."""

    payload: bytes
    source: bytes
    destination: bytes
    ttl: int


class VrrpSocket:
    """Speaks for the virtual router *router* from the address *own*, on one interface.

    With *peers*, advertisements go to them instead of the group of all VRRP routers, and only theirs are accepted.
    """

    def __init__(
        self, interface: str, index: int, own: IPAddress, router: int, peers: Collection[IPAddress] = ()
    ) -> None:
        """Open the socket.  Raises HostError, with nothing left open."""
        self.version, self.own = own.version, own.packed
        self._index = index
        self._peers = tuple(each.packed for each in peers)
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        try:
            self._socket = socket.socket(
                family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, PROTOCOL_VRRP
            )
        except PermissionError as error:
            raise HostError(f"VRRP cannot run on {interface}: {advice.gain(Capability.NET_RAW)}") from error
        except OSError as error:
            raise HostError(f"VRRP cannot run on {interface}: {advice.with_reason(error)}") from error
        try:
            attach(
                self._socket, SO_ATTACH_FILTER, _filter(self.version, router, is_multicast=not self._peers)
            )
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
            self._set_up()
        except OSError as error:
            self._socket.close()
            raise HostError(f"VRRP cannot run on {interface}: {advice.with_reason(error)}") from error

    @property
    def destinations(self) -> tuple[bytes, ...]:
        """The destinations of an advertisement."""
        return self._peers or (GROUPS[self.version],)

    @property
    def is_open(self) -> bool:
        """Return whether close() has not been called yet."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, payload: bytes, destination: bytes) -> None:
        """Send an advertisement to one of *destinations*.  Raises OSError."""
        if self.version == 4:
            source = socket.IPPROTO_IP, IP_PKTINFO, SOURCE_IPV4.pack(self._index, self.own)
            self._socket.sendmsg([payload], [source], 0, (str(IPv4Address(destination)), 0))
        else:
            source = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, SOURCE_IPV6.pack(self.own, self._index)
            is_near = destination[0] == 0xFF or destination[:2] == b"\xfe\x80"
            scope = self._index if is_near else 0
            self._socket.sendmsg([payload], [source], 0, (str(IPv6Address(destination)), 0, 0, scope))

    def receive(self) -> ReceivedAdvertisement | None:
        """Return the next advertisement; None if there is none now.

        Raises PacketError ``vrrp_source`` for an advertisement from one of our own addresses, or from none of the
        peers.
        """
        try:
            data, control, _, address = self._socket.recvmsg(LARGEST, CONTROL_SIZE)
        except OSError:  # none, or an error caused by one of our earlier datagrams
            return None
        received = _from_header(data) if self.version == 4 else _from_control(data, control, address[0])
        if received.source == self.own or (self._peers and received.source not in self._peers):
            raise PacketError("vrrp_source")
        return received

    def close(self) -> None:
        """Stop receiving."""
        self._socket.close()

    def _set_up(self) -> None:
        if self.version == 4:
            group = MULTICAST_REQUEST.pack(GROUP_IPV4, self.own, self._index)
            options: dict[int, int | bytes] = {
                socket.IP_TOS: INTERNETWORK_CONTROL,
                socket.IP_TTL: TTL,
                socket.IP_MULTICAST_TTL: TTL,
                socket.IP_MULTICAST_LOOP: 0,
                IP_MULTICAST_ALL: 0,
                socket.IP_MULTICAST_IF: group,
            }
            level, join = socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP
        else:
            group = MEMBERSHIP_REQUEST.pack(GROUP_IPV6, self._index)
            options = {
                socket.IPV6_TCLASS: INTERNETWORK_CONTROL,
                socket.IPV6_UNICAST_HOPS: TTL,
                socket.IPV6_MULTICAST_HOPS: TTL,
                socket.IPV6_MULTICAST_LOOP: 0,
                socket.IPV6_MULTICAST_IF: self._index,
                socket.IPV6_RECVHOPLIMIT: 1,
                socket.IPV6_RECVPKTINFO: 1,
            }
            level, join = socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP
            with contextlib.suppress(OSError):  # since Linux 4.20; the filter works without it
                self._socket.setsockopt(level, IPV6_MULTICAST_ALL, 0)
        for option, value in options.items():
            self._socket.setsockopt(level, option, value)
        if not self._peers:
            self._socket.setsockopt(level, join, group)


def _from_header(packet: bytes) -> ReceivedAdvertisement:
    """Read an IPv4 packet: the kernel also hands out its header, which it has checked."""
    size = (packet[0] & 15) * 4
    return ReceivedAdvertisement(packet[size:], packet[12:16], packet[16:20], packet[8])


def _from_control(payload: bytes, control: list[tuple[int, int, bytes]], host: str) -> ReceivedAdvertisement:
    """Read an IPv6 packet: its payload, and what the kernel reports about the header in control messages."""
    said = {kind: data for level, kind, data in control if level == socket.IPPROTO_IPV6}
    destination = said[socket.IPV6_PKTINFO][:16]
    limit: int = LIMIT.unpack(said[socket.IPV6_HOPLIMIT])[0]
    return ReceivedAdvertisement(payload, IPv6Address(host.partition("%")[0]).packed, destination, limit)


def _filter(version: int, router: int, *, is_multicast: bool) -> array.array[int]:
    """Return a program that passes advertisements of *router*."""
    drop = (RETURN, 0, 0, 0)
    steps = []
    if is_multicast:
        steps += [
            (LOAD_BYTE, 0, 0, NETWORK_HEADER + TTL_OFFSET[version]),
            (JUMP_IF_EQUAL, 1, 0, TTL),
            drop,
        ]
        group = GROUPS[version]
        for at in range(0, len(group), 4):
            steps += [
                (LOAD_WORD, 0, 0, NETWORK_HEADER + DESTINATION_OFFSET[version] + at),
                (JUMP_IF_EQUAL, 1, 0, int.from_bytes(group[at : at + 4], "big")),
                drop,
            ]
    if version == 4:  # the socket starts at the IP header
        steps += [(LOAD_HEADER_SIZE, 0, 0, 0), (LOAD_BYTE_BEHIND, 0, 0, VRID_OFFSET)]
    else:
        steps += [(LOAD_BYTE, 0, 0, VRID_OFFSET)]
    return program(*steps, (JUMP_IF_EQUAL, 1, 0, router), drop, (RETURN, 0, 0, EVERYTHING))
