"""The link of the tun or tap: its MTU, queue and Ethernet address; and the MTU of the host's other devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlay.host import sysctl
from overlay.host.netlink import codec
from overlay.host.netlink.kernel import GONE, refusal
from overlay.host.netlink.rtnetlink import RTM_GETLINK, RTM_NEWLINK
from overlay.linux import IFF_UP, NLM_F_ACK
from overlay.wire.ip import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from overlay.host.netlink.codec import Attribute
    from overlay.host.netlink.kernel import Kernel
    from overlay.host.plan import HostPlan

# Specification: linux/if_link.h
IN6_ADDR_GEN_MODE_NONE = 1

# Ours
TRANSMIT_QUEUE = 1000  # packets; the default of 500 for a tun is 7 ms at 1 Gbit/s


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What set_up() changes on the link of a persistent device."""

    is_up: bool
    mtu: int
    queue: int
    address_mode: int | None
    is_without_ipv6: bool
    mac: str | None  # None for a tun


class OwnLink:
    """The link of our own interface.  *index* None stands for an interface that does not exist."""

    def __init__(self, kernel: Kernel, interface: str, index: int | None, *, is_persistent: bool) -> None:
        self._kernel = kernel
        self._interface = interface
        self._index = index
        self._is_persistent = is_persistent
        self._former: LinkSettings | None = None  # of a persistent device, once it has been changed
        self._mtu: int | None = None  # None: the link is not set up
        self._mac: bytes | None = None

    def forget(self) -> None:
        """Make the next set_up() set everything again, because somebody else may have changed it."""
        self._mtu = None

    def is_as_set_up(self, name: str, mtu: int) -> bool:
        """Return whether a link with that name and MTU is as set_up() left ours, as far as it has run."""
        return name == self._interface and self._mtu in {mtu, None}

    def set_up(self, plan: HostPlan) -> None:
        """Set the link up as *plan* says, and bring it up.  Raises HostError."""
        if plan.mtu == self._mtu and plan.mac == self._mac:
            return
        attributes: list[Attribute] = [("IFLA_MTU", plan.mtu)]
        later: list[Attribute] = []
        try:
            present = self.read()
        except OSError as error:
            raise refusal(f"the state of {self._interface} could not be read", error) from error
        if self._is_persistent and self._former is None:
            self._former = present
        # Setting even the present address makes the kernel forget its neighbours.
        if plan.mac is not None and present.mac != plan.mac.hex(":"):
            attributes.append(("IFLA_ADDRESS", plan.mac.hex(":")))
        if self._mtu is None:
            if (
                not self._is_persistent
            ):  # otherwise it is an administrator's setting: see overlay/host/settings.py
                sysctl.loosen_rp_filter(self._interface)
                sysctl.stop_redirects(self._interface)
            attributes.append(("IFLA_TXQLEN", TRANSMIT_QUEUE))
        # Below its minimum MTU, a device has no IPv6, and the kernel refuses settings of it.
        if sysctl.has_ipv6() and plan.mtu >= IPV6_MINIMUM_MTU > (self._mtu or 0):
            if _has_ipv6(plan):
                sysctl.enable_ipv6(self._interface)
            # No link-local address: its router solicitations would start a session with every peer.  A tap with
            # addresses uses it to ask others for theirs.
            if plan.mac is None or not plan.addresses:
                later = [_address_mode(IN6_ADDR_GEN_MODE_NONE)]
        try:
            self._change(attributes, 0)
            if later:
                self._change(later, 0)  # separately: the MTU may be what lets the device have IPv6
            if self._mtu is None:
                self._change([], IFF_UP)  # separately: in one message the kernel would do this first
        except OSError as error:
            raise refusal(f"{self._interface} could not be set up with MTU {plan.mtu}", error) from error
        self._mtu, self._mac = plan.mtu, plan.mac

    def set_back(self) -> None:
        """Restore the link of a persistent device as it was before set_up().  Raises HostError."""
        former = self._former
        if former is None:
            return
        attributes: list[Attribute] = [("IFLA_MTU", former.mtu), ("IFLA_TXQLEN", former.queue)]
        if former.mac and self._mac is not None:
            attributes.append(("IFLA_ADDRESS", former.mac))
        if former.address_mode is not None:
            attributes.append(_address_mode(former.address_mode))
        try:
            if not former.is_up:
                self._change([], 0, IFF_UP)
            self._change(attributes, 0)
        except OSError as error:
            if error.errno not in GONE:
                raise refusal(f"{self._interface} could not be restored", error) from error
        if former.is_without_ipv6:
            sysctl.disable_ipv6(self._interface)
        self._former = self._mtu = None

    def name_back(self) -> None:
        """Give the interface its own name again; afterwards it is up only after another set_up().

        Raises HostError, for example if another interface has taken the name.
        """
        try:
            self._change([], 0, IFF_UP)  # kernels before 6.2 do not rename an interface that is up
            self._change([("IFLA_IFNAME", self._interface)], 0)
        except OSError as error:
            raise refusal(f"{self._interface} could not be renamed back", error) from error

    def read(self) -> LinkSettings:
        """Return the state of the link, whoever set it up.  Raises OSError."""
        assert self._index is not None
        found = _ask(self._kernel, self._index)
        families = found.get_attr("IFLA_AF_SPEC")
        of_ipv6 = families.get_attr("AF_INET6") if families is not None else None
        return LinkSettings(
            bool(found["flags"] & IFF_UP),
            found.get_attr("IFLA_MTU"),
            found.get_attr("IFLA_TXQLEN"),
            of_ipv6.get_attr("IFLA_INET6_ADDR_GEN_MODE") if of_ipv6 is not None else None,
            sysctl.is_ipv6_disabled(self._interface),
            found.get_attr("IFLA_ADDRESS"),
        )

    def _change(self, attributes: list[Attribute], flags: int, change: int | None = None) -> None:
        fields = {"index": self._index, "flags": flags, "change": flags if change is None else change}
        self._kernel.do(codec.encode(codec.LINK, RTM_NEWLINK, 0, fields, attributes))


class DeviceMtus:
    """The MTUs of the host's devices, each queried once until forget()."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._known: dict[int, int | None] = {}

    def of(self, index: int) -> int | None:
        """Return the MTU of the device *index*; None if it cannot be determined."""
        if index in self._known:
            return self._known[index]
        try:
            mtu: int | None = _ask(self._kernel, index).get_attr("IFLA_MTU")
        except OSError:
            return None
        self._known[index] = mtu
        return mtu

    def forget(self) -> None:
        """Query each again: the network changed."""
        self._known.clear()


def _ask(kernel: Kernel, index: int) -> Any:
    (raw,) = kernel.ask(codec.encode(codec.LINK, RTM_GETLINK, NLM_F_ACK, {"index": index}))
    return codec.decode(codec.LINK, raw)


def _address_mode(mode: int) -> Attribute:
    """Return the attribute that says whether the interface generates an IPv6 link-local address."""
    of_ipv6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", mode)]}
    return ("IFLA_AF_SPEC", {"attrs": [("AF_INET6", of_ipv6)]})


def _has_ipv6(plan: HostPlan) -> bool:
    return any(network.version == 6 for network in (*plan.addresses, *plan.routes, *plan.policy_routes))
