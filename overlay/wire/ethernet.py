"""Numbers of Ethernet (IEEE 802.3, IEEE 802.1Q), and of ARP and neighbour discovery, which find Ethernet addresses.

Numbers in frames are big endian.
"""

from __future__ import annotations

import struct

# Specification (IEEE 802.3, IEEE 802.1Q; IANA, IEEE 802 Numbers)
ETHERNET = struct.Struct("!6s6sH")  # destination, source, EtherType
ETHERNET_SIZE = ETHERNET.size  # 14
VLAN_SIZE = 4  # a tag of IEEE 802.1Q
GROUP = 0x01  # bit of the first byte of an address: it is a multicast or broadcast
ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86DD
ETHERTYPE_TAGS = frozenset({0x8100, 0x88A8})  # customer and service VLAN
ETHERTYPES = {4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}  # by IP version

# Specification (RFC 826)
# - 2 bytes kind of hardware, 2 bytes EtherType, 1 byte each for the lengths of their addresses, 2 bytes operation
# - then the addresses of Ethernet and of IP: first both of the sender, then both of the target
ARP = struct.Struct("!HHBBH6s4s6s4s")
ARP_ETHERNET_IPV4 = (1, ETHERTYPE_IPV4, 6, 4)
ARP_IEEE_802 = 6  # Ethernet under another number (RFC 1042), which kernels accept, too
ARP_REQUEST, ARP_REPLY = 1, 2

# Specification (RFC 4861 section 4)
ND_SOLICITATION, ND_ADVERTISEMENT = 135, 136
ND_REDIRECT = 137
ND_SIZE = 24  # of a solicitation or an advertisement, without options
ND_SIZES = {133: 8, 134: 16, ND_SOLICITATION: ND_SIZE, ND_ADVERTISEMENT: ND_SIZE, ND_REDIRECT: 40}
ND_ROUTER, ND_SOLICITED = 0x80, 0x40  # in the first byte of the flags
ND_SOURCE_LINK_ADDRESS, ND_TARGET_LINK_ADDRESS = 1, 2  # options, section 4.6.1
ND_HOP_LIMIT = 255  # only packets from the same link have it
