"""The ``unreachable`` routes behind those into the tunnel, which refuse packets when an agent ends other than by a
clean stop.

They are read without pyroute2, so that commands answer at once if they only find that no agent runs.
"""

from __future__ import annotations

import contextlib

from overlay.host.netlink.kernel import Kernel, dump_routes, refusal, versions
from overlay.host.netlink.rtnetlink import (
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TYPE_OFFSET,
    RTA_PRIORITY,
    RTN_UNREACHABLE,
    read_attributes,
    read_number,
)
from overlay.host.ownership import PROTOCOL, number_of


def count(interface: str) -> int:
    """Return how many such routes the agent of *interface* has, whether it runs or not.  Raises HostError."""
    number, found = number_of(interface), 0
    try:
        with contextlib.closing(Kernel()) as kernel:
            for version in versions():
                routes = dump_routes(kernel, version, protocol=PROTOCOL, kind=RTN_UNREACHABLE)
                found += sum(_is_of(number, each) for each in routes)
    except OSError as error:
        raise refusal("the routing tables of this host could not be read", error) from error
    return found


def _is_of(number: int, raw: bytes) -> bool:
    if raw[ROUTE_PROTOCOL_OFFSET] != PROTOCOL or raw[ROUTE_TYPE_OFFSET] != RTN_UNREACHABLE:
        return False  # a kernel before 4.20 shows all routes
    return read_number(dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET)).get(RTA_PRIORITY)) == number
