"""Routes, rules, addresses and the link of the tun: what the agent wants, and the difference to what is there.

The only module that imports pyroute2, and of it only the message formats: each message is written and read by it,
the socket is a plain one.  Its own sockets bring an asyncio loop and threads along, and write one route in 65 us;
here the message for many routes is written once and copied with another destination.

How our routes and rules are told from everybody else's, and from those of a second agent beside us:

- Every route and rule carries PROTOCOL.
- Routes on the tun are told apart by their device.  They vanish with it.
- The unreachable twin of each, same prefix and a worse metric, has no device and outlives a killed agent: packets
  for the overlay then get an ICMP error instead of leaving by the default route.  Its metric is a number derived
  from the interface name, as are the tables, so that the next agent of that name takes over what the last one left.
- A rule that looks up ``main`` carries the number as a firewall mark under an empty mask.  That matches every packet;
  the kernel keeps and shows it, so it serves as a label.

A subnet that may hold underlay endpoints (0.0.0.0/0 included) would catch our own datagrams if it were routed in the
main table.  It goes into a table of ours, one for each prefix length L, reached by two kinds of rules, longest
prefixes first:

    31000 + 2 * (32 - L)      to SUBNET lookup main suppress_prefixlength L     what main knows better stays there
    31000 + 2 * (32 - L) + 1  not from all fwmark MARK lookup TABLE             all but our own datagrams

(128 instead of 32 for IPv6.)  For 0.0.0.0/0 these are the two rules of wg-quick.  ``not`` negates a whole rule, so
the second names no subnet: the table has routes for the subnets of length L only, and no other packet finds one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import zlib
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from overlay.errors import HostError
from overlay.host import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class HostPlan:
    """How the host should be set up.

    *addresses* are /32 and /128; the first of each family is the source of the host's own packets into the overlay.
    *routes* lead into the tun by the main table, *policy_routes* by tables of ours that packets with *fwmark* skip:
    with any of these the mark must be given.  Own subnets are in neither.
    """

    mtu: int
    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[IPNetwork, ...] = ()
    policy_routes: tuple[IPNetwork, ...] = ()
    fwmark: int | None = None


class Routing:
    """What this agent has set up around one tun device."""

    def __init__(self, interface: str, index: int | None) -> None:
        """*index* None, where there is no tun, is enough to remove what a killed agent left: read_back(), withdraw()."""
        raise NotImplementedError

    def read_back(self) -> int:
        """Take over what stands in the kernel as ours, whoever of our interface name put it there; return how much.

        At start these are the leftovers of a killed agent: the next apply() keeps what it needs of them and removes
        the rest.  Later, it corrects our memory after somebody else took the link down or removed our routes.
        """
        raise NotImplementedError

    def apply(self, plan: HostPlan) -> None:
        """Bring the host from what is there to *plan*, changing only the difference, new before old.

        Raises HostError if the kernel refuses something; what was done by then is remembered, so that another
        apply(), say with the plan before, leads back.
        """
        raise NotImplementedError

    def withdraw(self) -> None:
        """Remove everything of ours; the host is then as it was.  What is gone already is no error."""
        raise NotImplementedError

    def route_mtu(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return what fits in one packet to *address* on the underlay; None if nothing leads there but the tun itself."""
        raise NotImplementedError

    def watch(self) -> Watch:
        """Return a socket that becomes readable when links, addresses, routes or rules change."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the socket to the kernel; what is set up stays."""
        raise NotImplementedError


class Watch:
    """Tells that the host's network changed."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        raise NotImplementedError

    def drain(self) -> bool:
        """Read what came in; return whether any of it was not our own doing."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop watching."""
        raise NotImplementedError
