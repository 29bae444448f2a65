"""By which addresses and default routes this host stands in the network, as netlink tells of changes.

Router advertisements and DHCP confirm the same addresses and routes over and over: that is not a change.  Nor is an
address of a link's own, as each new veth of a container gets one.
"""

from __future__ import annotations

from overlay.host.netlink.rtnetlink import (
    ADDRESS,
    ADDRESS_ATTRIBUTES_OFFSET,
    IFA_ADDRESS,
    IFA_F_TENTATIVE,
    IFA_LOCAL,
    ROUTE,
    ROUTE_ATTRIBUTES_OFFSET,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_GATEWAY,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_PRIORITY,
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    read_attributes,
)
from overlay.linux import NETLINK_HEADER

# Ours
TELLING = (RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH)  # of a default route
LARGEST = 4096  # addresses and routes remembered; beyond that some changes are taken for news that are none


class NetworkChanges:
    """The addresses and default routes that netlink has told of so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bool] = {}  # whether it is there

    def take(self, message: bytes) -> bool:
        """Note one netlink message; return whether by it the host stands elsewhere than before."""
        _, kind, _, _, _ = NETLINK_HEADER.unpack_from(message)
        if kind in {RTM_NEWADDR, RTM_DELADDR}:
            family, length, flags, scope, index = ADDRESS.unpack_from(message, NETLINK_HEADER.size)
            found = dict(read_attributes(message, ADDRESS_ATTRIBUTES_OFFSET))
            if scope != RT_SCOPE_UNIVERSE:
                return False
            key = (family, length, index, found.get(IFA_LOCAL) or found.get(IFA_ADDRESS))
            return self._note(key, kind == RTM_NEWADDR and not flags & IFA_F_TENTATIVE)
        if kind in {RTM_NEWROUTE, RTM_DELROUTE}:
            family, length, _, _, table, *_ = ROUTE.unpack_from(message, NETLINK_HEADER.size)
            if length or table != RT_TABLE_MAIN:
                return False
            found = dict(read_attributes(message, ROUTE_ATTRIBUTES_OFFSET))
            return self._note((family, *map(found.get, TELLING)), kind == RTM_NEWROUTE)
        return False

    def _note(self, key: tuple[object, ...], is_there: bool) -> bool:
        before = self._known.get(key)
        if len(self._known) >= LARGEST:
            self._known.clear()
        self._known[key] = is_there
        return before is not is_there
