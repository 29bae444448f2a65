"""How a host should be set up, as a value: config makes it, netlink carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class HostPlan:
    """How the host should be set up.

    *addresses* are /32 and /128; the first of each family is the source of the host's own packets into the overlay.
    *far_ends*, at most one of each family, are the peer's addresses of a point-to-point link; they go with those.
    *routes* lead into the tun by the main table, *policy_routes* by tables of ours that packets with *fwmark* skip:
    with any of these the mark must be given, and not 0.  Own subnets are in neither.  *on_link* are those of the policy
    routes that this host is on itself, where its own route is preferred to the tun.  *mac* is the Ethernet address
    of a tap; None for a tun.  What the user *passing_uid* sends skips the policy routes too.

    *held* are addresses of virtual services, which this host answers with and never prefers as a source.  *rules* is
    what nft is told to translate, empty for nothing, *limits* what it should hold floods to, and *settings* are
    settings of the host by their names, as long as the plan is in force.  With *returned* addresses, answers of servers
    here go into the tun wherever they are to, unless that is in *inside*, networks behind this host: what is from a
    returned address that is held, and what *rules* mark with the number of the interface.
    """

    mtu: int
    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[IPNetwork, ...] = ()
    policy_routes: tuple[IPNetwork, ...] = ()
    fwmark: int | None = None
    far_ends: tuple[IPAddress, ...] = ()
    mac: bytes | None = None
    on_link: tuple[IPNetwork, ...] = ()
    passing_uid: int | None = None
    held: tuple[IPInterface, ...] = ()
    rules: str = ""
    limits: str = ""
    settings: tuple[tuple[str, int], ...] = ()
    returned: tuple[IPAddress, ...] = ()
    inside: tuple[IPNetwork, ...] = ()

    def far_end_of(self, address: IPInterface) -> IPAddress:
        """Return the far end of the link that *address* is at; *address* itself if it is not on such a link."""
        first = next((each for each in self.addresses if each.version == address.version), None)
        ends = [each for each in self.far_ends if each.version == address.version and address == first]
        return ends[0] if ends else address.ip


@dataclass(frozen=True, slots=True)
class Device:
    """How an interface stands: its addresses, and the networks that any routing table leads into it.

    *mac* is its Ethernet address, None where it has none.
    """

    is_up: bool
    mtu: int
    addresses: frozenset[IPAddress]
    networks: frozenset[IPNetwork]
    mac: bytes | None = None
