"""The ``unreachable`` routes beside those into the tunnel, which refuse packets when an agent ends other than by a clean stop.

Asked of the kernel without pyroute2: commands that only find that no agent runs answer at once.
"""

from __future__ import annotations

import contextlib

from overlay.host.netlink.kernel import Kernel, refusal, versions
from overlay.host.netlink.rtnetlink import (
    NETLINK_HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    ROUTE,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TYPE_OFFSET,
    RTA_PRIORITY,
    RTM_GETROUTE,
    RTN_UNREACHABLE,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.ownership import PROTOCOL, number_of


def count(interface: str) -> int:
    """Return how many stand for the agent of *interface*, whether it runs or not.  Raises HostError."""
    number, found = number_of(interface), 0
    try:
        with contextlib.closing(Kernel()) as kernel:
            for version in versions():
                route = ROUTE.pack(family_of(version), 0, 0, 0, 0, PROTOCOL, 0, RTN_UNREACHABLE, 0)
                size, flags = NETLINK_HEADER.size + len(route), NLM_F_REQUEST | NLM_F_DUMP
                header = NETLINK_HEADER.pack(size, RTM_GETROUTE, flags, 0, 0)
                found += sum(_is_of(number, each) for each in kernel.ask(header + route))
    except OSError as error:
        raise refusal("the routing tables of this host could not be read", error) from error
    return found


def _is_of(number: int, raw: bytes) -> bool:
    if raw[ROUTE_PROTOCOL_OFFSET] != PROTOCOL or raw[ROUTE_TYPE_OFFSET] != RTN_UNREACHABLE:
        return False  # a kernel before 4.20 shows all routes
    return read_number(dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET)).get(RTA_PRIORITY)) == number
