"""Changes of this host's addresses and default routes, as netlink reports them.

Router advertisements and DHCP confirm the same addresses and routes again and again, which is not a change.  Nor is a
link-local address, which each new veth of a container gets.
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
LARGEST = 4096  # addresses and routes remembered; beyond that some repeated reports count as changes


class NetworkChanges:
    """The addresses and default routes that netlink has reported so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bool] = {}  # whether it exists

    def take(self, message: bytes) -> bool:
        """Take one netlink message; return whether it changed the host's place in the network."""
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
