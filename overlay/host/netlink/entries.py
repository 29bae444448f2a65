"""Messages about single routes, neighbours and addresses of a named link, in any network namespace."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.host.netlink.rtnetlink import (
    ADDRESS,
    IFA_ADDRESS,
    IFA_F_NODAD,
    IFA_LOCAL,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NUMBER,
    ROUTE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTAX_MTU,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTN_UNICAST,
    build_attribute,
    build_message,
    family_of,
)
from overlay.host.ownership import PROTOCOL
from overlay.linux import NLM_F_CREATE

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress, IPNetwork

# Specification: linux/neighbour.h, linux/rtnetlink.h
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
RTNH_F_ONLINK = 4  # the gateway is on the link, whatever the routes say


def new_address(index: int, address: IPAddress, *, is_of_host: bool = False) -> bytes:
    """Return the message that gives *address* to a link, usable at once: no other host could have a duplicate.

    With *is_of_host* this host answers for it, and never chooses an IPv4 address as the source of its own packets.
    """
    scope = RT_SCOPE_HOST if is_of_host and address.version == 4 else RT_SCOPE_UNIVERSE
    flags = IFA_F_NODAD if address.version == 6 else 0
    return build_message(
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_EXCL,
        ADDRESS.pack(family_of(address.version), address.max_prefixlen, flags, scope, index),
        build_attribute(IFA_LOCAL, address.packed),
        build_attribute(IFA_ADDRESS, address.packed),
    )


def new_neighbour(index: int, address: IPAddress, mac: bytes) -> bytes:
    """Return the message that makes *address* a permanent neighbour at *mac* on a link."""
    return build_message(
        RTM_NEWNEIGH,
        NLM_F_CREATE | NLM_F_REPLACE,
        NEIGHBOUR.pack(family_of(address.version), index, NUD_PERMANENT, 0, 0),
        build_attribute(NDA_DST, address.packed),
        build_attribute(NDA_LLADDR, mac),
    )


def new_route(
    index: int,
    network: IPNetwork,
    *,
    gateway: IPAddress | None = None,
    mtu: int | None = None,
    protocol: int = PROTOCOL,
    replaces: bool = False,
) -> bytes:
    """Return the message for a route to *network* by a link, through *gateway* on that link if given.

    Packets that this host sends or forwards there have at most *mtu* bytes.
    """
    scope = RT_SCOPE_LINK if network.version == 4 and gateway is None else RT_SCOPE_UNIVERSE
    flags = RTNH_F_ONLINK if gateway is not None else 0
    parts = [
        ROUTE.pack(
            family_of(network.version),
            network.prefixlen,
            0,
            0,
            RT_TABLE_MAIN,
            protocol,
            scope,
            RTN_UNICAST,
            flags,
        ),
        build_attribute(RTA_DST, network.network_address.packed),
        build_attribute(RTA_OIF, NUMBER.pack(index)),
    ]
    if gateway is not None:
        parts.append(build_attribute(RTA_GATEWAY, gateway.packed))
    if mtu is not None:
        parts.append(build_attribute(RTA_METRICS, build_attribute(RTAX_MTU, NUMBER.pack(mtu))))
    return build_message(RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replaces else NLM_F_EXCL), *parts)
