"""Numbers of the Linux kernel's interface that more than one module needs, by the header that defines them.

Python's socket module names only some of them.  Numbers that a single module needs are in that module.
"""

from __future__ import annotations

import struct

# asm-generic/socket.h
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

# linux/in.h
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
PMTUDISC_DONT, PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE, PMTUDISC_OMIT = 0, 1, 2, 3, 5

# linux/in6.h
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IPV6_RECVERR = 25
IPV6_PKTINFO = 50

# linux/socket.h, linux/udp.h
SOL_UDP = 17
UDP_SEGMENT = 103  # since Linux 4.18
UDP_GRO = 104  # since Linux 5.0

# linux/errqueue.h
EXTENDED_ERROR = struct.Struct("=IBBBxII")  # errno, origin, type, code, info, data

# linux/if.h
IFF_UP = 0x1
INTERFACE_FLAGS = struct.Struct("16sH22x")  # struct ifreq with a name and flags

# linux/netlink.h; in the byte order of the host
NETLINK_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
NLMSG_ERROR = 2
ERROR_CODE = struct.Struct("=i")  # at the start of the payload of such a message
NLM_F_REQUEST = 0x001
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NLM_F_ACK = 0x004
NLM_F_CREATE = 0x400
ATTRIBUTE = struct.Struct("=HH")  # length, type

# linux/filter.h, linux/bpf_common.h: classic BPF
INSTRUCTION = struct.Struct("=HBBI")  # operation, jumps if true and if false, operand
LOAD_WORD = 0x20  # of 32 bits, at a fixed offset, big endian in a packet
JUMP_IF_EQUAL = 0x15  # to the operand
RETURN = 0x06

# Documentation/networking/ip-sysctl: rp_filter, RFC 3704 section 2.4
LOOSE = 2  # any route to the source is enough

# linux/netfilter_ipv4.h: the priorities of translations
DESTINATION_NAT, SOURCE_NAT = -100, 100
