"""The addresses of the tun."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from overlay.host.netlink import codec
from overlay.host.netlink.kernel import GONE, refusal
from overlay.host.netlink.rtnetlink import (
    ADDRESS_ATTRIBUTES_OFFSET,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_PROTO,
    NLM_F_DUMP,
    NLM_F_EXCL,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
    build_attribute,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.ownership import PROTOCOL
from overlay.linux import NLM_F_CREATE

if TYPE_CHECKING:
    from overlay.host.netlink.kernel import Kernel
    from overlay.host.netlink.rtnetlink import Version
    from overlay.host.plan import IPAddress, IPInterface

LENGTH = struct.Struct("=I")  # at the start of a message


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the tun; *far* is the peer's address of a point-to-point link, else its own."""

    interface: IPInterface
    far: IPAddress

    @property
    def version(self) -> Version:
        return self.interface.version

    def __str__(self) -> str:
        return str(self.interface)


class Addresses:
    """The addresses that we have given to our interface, in `ours`, and the operations that change them."""

    def __init__(self, kernel: Kernel, interface: str, index: int | None) -> None:
        self._kernel = kernel
        self._interface = interface
        self._index = index
        self.ours: dict[Address, None] = {}

    def read_back(self) -> None:
        """Take over the addresses of the interface that carry our label, or were ours before.  Raises OSError."""
        self.ours = dict.fromkeys(
            address for address, is_labelled in self.read().items() if is_labelled or address in self.ours
        )

    def read(self) -> dict[Address, bool]:
        """Return all addresses of the interface, and whether each carries our label.  Raises OSError."""
        if self._index is None:
            return {}
        addresses: dict[Address, bool] = {}
        question = codec.encode(codec.ADDRESS, RTM_GETADDR, NLM_F_DUMP, {"index": self._index})
        for raw in self._kernel.ask(question):
            found = codec.decode(codec.ADDRESS, raw)
            if found["index"] == self._index:
                far = found.get_attr("IFA_ADDRESS")
                interface = ip_interface(f"{found.get_attr('IFA_LOCAL') or far}/{found['prefixlen']}")
                label = dict(read_attributes(raw, ADDRESS_ATTRIBUTES_OFFSET)).get(IFA_PROTO)
                addresses[Address(interface, ip_address(far))] = read_number(label) == PROTOCOL
        return addresses

    def in_the_way_of(self, address: Address) -> list[Address]:
        """Return our IPv6 addresses that are *address* with another far end, or have the same far end.

        The kernel does not accept a second one of the former; and the route to a far end, which it makes whatever the
        flags say, would vanish with the latter.
        """
        if address.version != 6:
            return []
        return [
            other
            for other in self.ours
            if other.interface == address.interface or other.far == address.far != address.interface.ip
        ]

    def first_form(self, address: Address) -> Address:
        """Return *address*, without its far end while another of our IPv4 addresses has the same.

        Otherwise the kernel would treat the second as a secondary of the first, and remove it with the first.
        """
        is_taken = any(each.far == address.far != each.interface.ip for each in self.ours)
        if address.version == 6 or not is_taken:
            return address
        return Address(address.interface, address.interface.ip)

    def add(self, address: Address) -> None:
        """Give *address* to the interface; if somebody else already has, it does not become ours.  Raises HostError."""
        try:
            self._change(address, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise refusal(f"{address} could not be given to {self._interface}", error) from error
            return  # somebody else set it, and will remove it
        self.ours[address] = None

    def remove(self, address: Address) -> None:
        """Remove *address*, one of ours, from the interface; it may be gone already.  Raises HostError."""
        try:
            self._change(address, RTM_DELADDR)
        except OSError as error:
            if error.errno not in GONE:
                raise refusal(f"{address} could not be removed from {self._interface}", error) from error
        del self.ours[address]

    def _change(self, address: Address, kind: int, flags: int = 0) -> None:
        fields = {
            "family": family_of(address.version),
            "prefixlen": address.interface.network.prefixlen,
            "index": self._index,
        }
        attributes = [
            ("IFA_LOCAL", str(address.interface.ip)),
            ("IFA_ADDRESS", str(address.far)),
            ("IFA_FLAGS", IFA_F_NOPREFIXROUTE | (IFA_F_NODAD if address.version == 6 else 0)),
        ]
        data = bytearray(codec.encode(codec.ADDRESS, kind, flags, fields, attributes))
        data += build_attribute(IFA_PROTO, bytes([PROTOCOL]))  # not every version of pyroute2 has it
        LENGTH.pack_into(data, 0, len(data))
        refused = self._kernel.do_all([data])
        if refused:
            raise OSError(refused[0], os.strerror(refused[0]))
