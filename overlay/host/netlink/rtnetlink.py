"""rtnetlink messages as bytes, and the numbers in them.

What is read or written often, or in great numbers, is read and written by hand with these.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Literal, TypeAlias

from overlay.linux import ATTRIBUTE, NETLINK_HEADER, NLM_F_REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator

# Specification: linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h, linux/if.h
# All numbers are in the byte order of the host.
NLMSG_DONE = 3
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH = 28
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
NLM_F_DUMP_INTR = 0x010  # the tables changed meanwhile: the dump may have holes
RTM_F_CLONED = 0x200  # in a question since Linux 5.3: only exceptions
RTM_F_LOOKUP_TABLE = 0x1000  # the answer names the table; that of IPv6 always does, and has no such flag
# Since Linux 4.13: the answer is the route in its table, not the one derived for a single address.
RTM_F_FIB_MATCH = 0x2000
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY = 1, 2, 3, 4, 5
RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH = 6, 7, 8, 9
RTAX_MTU = 2
RTA_CACHEINFO = 12
RTA_TABLE = 15
RTA_MARK = 16
RTA_VIA = 18  # a gateway of the other family
CACHEINFO_EXPIRES = slice(8, 12)  # struct rta_cacheinfo: 4 bytes of references, 4 of last use, then this
RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_BROADCAST = 3
RTN_MULTICAST = 5
RTN_BLACKHOLE = 6
RTN_UNREACHABLE = 7
RTN_PROHIBIT = 8
RTN_THROW = 9
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK, RT_SCOPE_HOST = 253, 254
RT_SCOPE_NOWHERE = 255  # in a deletion: any scope
RT_TABLE_UNSPEC = 0
RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255

# struct ifaddrmsg: family, prefix length, flags, scope, index
ADDRESS = struct.Struct("=BBBBi")
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_PROTO = 11  # since Linux 5.18; older kernels ignore it
IFA_F_NODAD = 0x002  # usable at once; no other host is on this link
IFA_F_TENTATIVE = 0x040  # not usable yet
IFA_F_NOPREFIXROUTE = 0x200


# struct ifinfomsg: family, kind of hardware, index, flags, what changes
INTERFACE = struct.Struct("=BxHiII")
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU = 1, 3, 4

# struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags
ROUTE = struct.Struct("=BBBBBBBBI")

# Ours
RECEIVE_SIZE = 64 * 1024  # bytes; the kernel fills at most 32 KiB of a dump

# Offsets of fields, from the start of a message
ROUTE_LENGTH_OFFSET = NETLINK_HEADER.size + 1  # of the destination prefix, in bits
ROUTE_TABLE_OFFSET = NETLINK_HEADER.size + 4
ROUTE_PROTOCOL_OFFSET = NETLINK_HEADER.size + 5
ROUTE_TYPE_OFFSET = NETLINK_HEADER.size + 7
ROUTE_ATTRIBUTES_OFFSET = NETLINK_HEADER.size + ROUTE.size
ADDRESS_ATTRIBUTES_OFFSET = NETLINK_HEADER.size + ADDRESS.size
LINK_ATTRIBUTES_OFFSET = NETLINK_HEADER.size + INTERFACE.size
NUMBER = struct.Struct("=I")  # most numbers in attributes

Version: TypeAlias = Literal[4, 6]


def family_of(version: Version) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def build_message(kind: int, flags: int, *parts: bytes) -> bytes:
    """Return the request of *kind* with *parts*: a struct, then attributes.  Kernel numbers it."""
    body = b"".join(parts)
    return NETLINK_HEADER.pack(NETLINK_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def build_attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded to a multiple of four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) & 3)


def split_messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages of one receive."""
    offset = 0
    while offset + NETLINK_HEADER.size <= len(data):
        length = NETLINK_HEADER.unpack_from(data, offset)[0]
        if length < NETLINK_HEADER.size:
            return
        yield data[offset : offset + length]
        offset += (length + 3) & ~3


def read_attributes(message: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind, message[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def read_number(attribute: bytes | None) -> int:
    """Return an unsigned attribute of any size; 0 if it is missing."""
    return int.from_bytes(attribute or b"", sys.byteorder)
