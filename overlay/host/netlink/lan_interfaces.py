"""The state of the interfaces on a LAN: whether one is up, its Ethernet address and its IP addresses."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.host.interfaces import index_of
from overlay.host.netlink.kernel import Kernel, refusal
from overlay.host.netlink.rtnetlink import (
    ADDRESS,
    ADDRESS_ATTRIBUTES_OFFSET,
    IFA_ADDRESS,
    IFA_F_TENTATIVE,
    IFA_LOCAL,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    INTERFACE,
    LINK_ATTRIBUTES_OFFSET,
    NLM_F_DUMP,
    RTM_GETADDR,
    RTM_GETLINK,
    build_message,
    read_attributes,
)
from overlay.linux import IFF_UP, NETLINK_HEADER, NLM_F_ACK

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress

# Specification: linux/if.h, linux/if_arp.h, linux/if_addr.h
IFF_RUNNING = 0x40  # with a carrier
ARPHRD_ETHER = 1
IFA_F_DADFAILED = 0x008  # another host on the link has it


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface.  *is_up* means: with a carrier.  *mac* is None if it is not Ethernet.

    *addresses* are those that can be used, in the order of the kernel, which sends from the first of a family.
    """

    name: str
    index: int
    is_up: bool
    mac: bytes | None
    addresses: tuple[IPAddress, ...]


class LanInterfaces:
    """A socket on which the kernel reports the state of interfaces."""

    def __init__(self) -> None:
        try:
            self._kernel = Kernel()
        except OSError as error:
            raise refusal("the interfaces of this host cannot be read", error) from error

    def read(self, interface: str | int) -> Interface | None:
        """Return the interface with that name or index; None if there is none.  Raises HostError."""
        index = index_of(interface) if isinstance(interface, str) else interface
        if index is None:
            return None
        try:
            question = build_message(RTM_GETLINK, NLM_F_ACK, INTERFACE.pack(socket.AF_UNSPEC, 0, index, 0, 0))
            raw = self._kernel.ask(question)[0]
            addresses = self._addresses(index)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise refusal(f"the state of {interface} could not be read", error) from error
        _, kind, _, flags, _ = INTERFACE.unpack_from(raw, NETLINK_HEADER.size)
        found = dict(read_attributes(raw, LINK_ATTRIBUTES_OFFSET))
        name = found[IFLA_IFNAME].partition(b"\0")[0].decode(errors="surrogateescape")
        mac = found.get(IFLA_ADDRESS) if kind == ARPHRD_ETHER else None
        is_up = flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING
        return Interface(name, index, is_up, mac, addresses)

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    def _addresses(self, index: int) -> tuple[IPAddress, ...]:
        addresses: list[IPAddress] = []
        question = ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, index)
        for raw in self._kernel.ask(build_message(RTM_GETADDR, NLM_F_DUMP, question)):
            _, _, flags, _, at = ADDRESS.unpack_from(raw, NETLINK_HEADER.size)
            if at == index and not flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED):
                found = dict(read_attributes(raw, ADDRESS_ATTRIBUTES_OFFSET))
                addresses.append(ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS]))
        return tuple(addresses)
