"""The link of the tun or tap: its MTU, queue and Ethernet address; and the MTU of the host's other devices."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.host import sysctl
from overlay.host.netlink.kernel import GONE, refusal
from overlay.host.netlink.rtnetlink import (
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_IFNAME,
    IFLA_INET6_ADDR_GEN_MODE,
    IFLA_MTU,
    IFLA_TXQLEN,
    IN6_ADDR_GEN_MODE_NONE,
    INTERFACE,
    LINK_ATTRIBUTES_OFFSET,
    RTM_GETLINK,
    RTM_NEWLINK,
    build_attribute,
    build_message,
    build_number,
    read_attributes,
    read_number,
)
from overlay.linux import IFF_UP, NETLINK_HEADER, NLM_F_ACK
from overlay.wire.ip import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from overlay.host.netlink.kernel import Kernel
    from overlay.host.plan import HostPlan

# Ours
TRANSMIT_QUEUE = 1000  # packets; the default of 500 for a tun is 7 ms at 1 Gbit/s


@dataclass(frozen=True, slots=True)
class LinkState:
    """What set_up() changes on the link of a persistent device."""

    is_up: bool
    mtu: int
    queue: int
    address_mode: int | None
    is_without_ipv6: bool
    mac: bytes | None  # None for a tun


class OwnLink:
    """The link of our own interface.  *index* None stands for an interface that does not exist."""

    def __init__(self, kernel: Kernel, interface: str, index: int | None, *, is_persistent: bool) -> None:
        self._kernel = kernel
        self._interface = interface
        self._index = index
        self._is_persistent = is_persistent
        self._former: LinkState | None = None  # of a persistent device, once it has been changed
        self._mtu: int | None = None  # None: the link is not set up
        self._mac: bytes | None = None

    def forget(self) -> None:
        """Make the next set_up() set everything again: somebody else may have changed it."""
        self._mtu = None

    def is_as_set_up(self, name: str, mtu: int) -> bool:
        """Return whether a link with that name and MTU is as set_up() left ours, as far as it has run."""
        return name == self._interface and self._mtu in {mtu, None}

    def set_up(self, plan: HostPlan) -> None:
        """Set the link up as *plan* says, and bring it up.  Raises HostError."""
        if plan.mtu == self._mtu and plan.mac == self._mac:
            return
        attributes = build_number(IFLA_MTU, plan.mtu)
        later = b""
        if self._is_persistent and self._former is None:
            try:
                self._former = self.read()
            except OSError as error:
                raise refusal(f"the state of {self._interface} could not be read", error) from error
        if plan.mac is not None:
            attributes += build_attribute(IFLA_ADDRESS, plan.mac)
        if self._mtu is None:
            if not self._is_persistent:  # otherwise an administrator's setting; see overlay/host/settings.py
                sysctl.loosen_rp_filter(self._interface)
                sysctl.stop_redirects(self._interface)
            attributes += build_number(IFLA_TXQLEN, TRANSMIT_QUEUE)
        # Below its minimum MTU, a device has no IPv6, and the kernel refuses settings of it.
        if sysctl.has_ipv6() and plan.mtu >= IPV6_MINIMUM_MTU > (self._mtu or 0):
            if _has_ipv6(plan):
                sysctl.enable_ipv6(self._interface)
            # No link-local address: its router solicitations would start a session with every peer.  A tap with
            # addresses uses it to ask others for theirs.
            if plan.mac is None or not plan.addresses:
                later = _address_mode(IN6_ADDR_GEN_MODE_NONE)
        try:
            self._change(attributes, 0)
            if later:
                self._change(later, 0)  # separately: the MTU may be what lets the device have IPv6
            if self._mtu is None:
                self._change(b"", IFF_UP)  # separately: in one message the kernel would do this first
        except OSError as error:
            raise refusal(f"{self._interface} could not be set up with MTU {plan.mtu}", error) from error
        self._mtu, self._mac = plan.mtu, plan.mac

    def set_back(self) -> None:
        """Restore the link of a persistent device as it was before set_up().  Raises HostError."""
        former = self._former
        if former is None:
            return
        attributes = build_number(IFLA_MTU, former.mtu) + build_number(IFLA_TXQLEN, former.queue)
        if former.mac and self._mac is not None:
            attributes += build_attribute(IFLA_ADDRESS, former.mac)
        if former.address_mode is not None:
            attributes += _address_mode(former.address_mode)
        try:
            if not former.is_up:
                self._change(b"", 0, IFF_UP)
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
            self._change(b"", 0, IFF_UP)  # kernels before 6.2 do not rename an interface that is up
            self._change(
                build_attribute(IFLA_IFNAME, self._interface.encode(errors="surrogateescape") + b"\0"), 0
            )
        except OSError as error:
            raise refusal(f"{self._interface} could not be renamed back", error) from error

    def read(self) -> LinkState:
        """Return the state of the link, whoever set it up.  Raises OSError."""
        assert self._index is not None
        flags, found = _ask(self._kernel, self._index)
        families = dict(read_attributes(found.get(IFLA_AF_SPEC, b""), 0))
        of_ipv6 = dict(read_attributes(families.get(socket.AF_INET6, b""), 0))
        mode = of_ipv6.get(IFLA_INET6_ADDR_GEN_MODE)
        return LinkState(
            bool(flags & IFF_UP),
            read_number(found[IFLA_MTU]),
            read_number(found[IFLA_TXQLEN]),
            None if mode is None else read_number(mode),
            sysctl.is_ipv6_disabled(self._interface),
            found.get(IFLA_ADDRESS),
        )

    def _change(self, attributes: bytes, flags: int, change: int | None = None) -> None:
        changed = flags if change is None else change
        fields = INTERFACE.pack(socket.AF_UNSPEC, 0, self._index, flags, changed)
        self._kernel.do(build_message(RTM_NEWLINK, 0, fields, attributes))


class DeviceMtus:
    """The MTUs of the host's devices, each queried once until forget()."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._known: dict[int, int] = {}

    def of(self, index: int) -> int | None:
        """Return the MTU of the device *index*; None if it cannot be determined."""
        if index in self._known:
            return self._known[index]
        try:
            _, found = _ask(self._kernel, index)
        except OSError:
            return None
        self._known[index] = read_number(found[IFLA_MTU])
        return self._known[index]

    def forget(self) -> None:
        """Query each again: the network changed."""
        self._known.clear()


def _ask(kernel: Kernel, index: int) -> tuple[int, dict[int, bytes]]:
    """Return the flags and the attributes of a link.  Raises OSError."""
    (raw,) = kernel.ask(
        build_message(RTM_GETLINK, NLM_F_ACK, INTERFACE.pack(socket.AF_UNSPEC, 0, index, 0, 0))
    )
    _, _, _, flags, _ = INTERFACE.unpack_from(raw, NETLINK_HEADER.size)
    return flags, dict(read_attributes(raw, LINK_ATTRIBUTES_OFFSET))


def _address_mode(mode: int) -> bytes:
    """Return the attribute that says whether the interface generates an IPv6 link-local address."""
    of_ipv6 = build_attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([mode]))
    return build_attribute(IFLA_AF_SPEC, build_attribute(socket.AF_INET6, of_ipv6))


def _has_ipv6(plan: HostPlan) -> bool:
    return any(network.version == 6 for network in (*plan.addresses, *plan.routes, *plan.policy_routes))
