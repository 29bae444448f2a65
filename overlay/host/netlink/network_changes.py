"""By which addresses and default routes this host stands in the network, as netlink tells of changes.

Router advertisements and DHCP confirm the same addresses and routes over and over: that is no change.  Nor is an
address of a link's own, as each new veth of a container gets one.
"""

from __future__ import annotations

import struct

from overlay.host.netlink.rtnetlink import NETLINK_HEADER, read_attributes

# Specification: linux/rtnetlink.h, linux/if_addr.h
RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 20, 21, 24, 25
ADDRESS_HEADER = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
ROUTE_HEADER = struct.Struct(
    "=BBBBBBBBI"
)  # family, destination length, ..., table, protocol, scope, type, flags
RT_SCOPE_UNIVERSE = 0
RT_TABLE_MAIN = 254
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_TENTATIVE = 0x40  # not usable yet
RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH = 4, 5, 6, 9
TELLING = (RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH)  # of a default route

# Ours
LARGEST = 4096  # addresses and routes remembered; beyond that some changes are taken for news that are none


class Standing:
    """What netlink has told of it so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bool] = {}  # whether it is there

    def take(self, message: bytes) -> bool:
        """Note one netlink message; return whether by it the host stands elsewhere than before."""
        _, kind, _, _, _ = NETLINK_HEADER.unpack_from(message)
        if kind in {RTM_NEWADDR, RTM_DELADDR}:
            family, length, flags, scope, index = ADDRESS_HEADER.unpack_from(message, NETLINK_HEADER.size)
            found = dict(read_attributes(message, NETLINK_HEADER.size + ADDRESS_HEADER.size))
            if scope != RT_SCOPE_UNIVERSE:
                return False
            key = (family, length, index, found.get(IFA_LOCAL) or found.get(IFA_ADDRESS))
            return self._note(key, kind == RTM_NEWADDR and not flags & IFA_F_TENTATIVE)
        if kind in {RTM_NEWROUTE, RTM_DELROUTE}:
            family, length, _, _, table, *_ = ROUTE_HEADER.unpack_from(message, NETLINK_HEADER.size)
            if length or table != RT_TABLE_MAIN:
                return False
            found = dict(read_attributes(message, NETLINK_HEADER.size + ROUTE_HEADER.size))
            return self._note((family, *map(found.get, TELLING)), kind == RTM_NEWROUTE)
        return False

    def _note(self, key: tuple[object, ...], is_there: bool) -> bool:
        before = self._known.get(key)
        if len(self._known) >= LARGEST:
            self._known.clear()
        self._known[key] = is_there
        return before is not is_there
