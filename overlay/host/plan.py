"""How a host should be set up, as a value: config makes it, netlink applies it."""

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

    *addresses* are /32 and /128; the first of each family is the source of the host's own packets to the overlay.
    *far_ends*, at most one of each family, are the peer's addresses of a point-to-point link; they belong to these.
    *routes* lead into the tun by the main table, *policy_routes* by our own tables, which packets with *fwmark* skip;
    with *policy_routes* the mark must not be 0.  The host's own subnets are in neither.  *on_link* are those policy
    routes whose networks this host is on itself; its own route takes precedence over the tun.  *mac* is the Ethernet
    address of a tap; None for a tun.  Packets of the user *passing_uid* skip the policy routes, too.

    *held* are addresses of virtual services, which this host answers with and never prefers as a source.  *rules* are
    nft's translations, empty for none, *limits* its limits on floods, and *settings* the settings of the host, by name,
    while the plan is in force.  With *returned* addresses, answers of servers on this host go into the tun whatever
    their destination, unless it is in *inside*, the networks behind this host.  Such answers come from a returned
    address that is held, or *rules* mark them with the number of the interface.
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
        """Return the far end of the link that has *address*; *address* itself if it is not on a point-to-point link."""
        first = next((each for each in self.addresses if each.version == address.version), None)
        ends = [each for each in self.far_ends if each.version == address.version and address == first]
        return ends[0] if ends else address.ip


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The state of an interface: its addresses, and the networks that any routing table leads into it.

    *mac* is its Ethernet address, None if it has none.
    """

    is_up: bool
    mtu: int
    addresses: frozenset[IPAddress]
    networks: frozenset[IPNetwork]
    mac: bytes | None = None
