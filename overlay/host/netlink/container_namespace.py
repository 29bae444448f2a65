"""The inside of a container: the link, addresses and routes in another network namespace.

No process enters it.  The client has opened a socket to the kernel inside, and the directory of its IPv6 settings, and
passes both together with the namespace itself.  The kernel then accepts messages of this process for that namespace: it
checks the privileges of the opener of the socket and of the sender.  So this process needs CAP_NET_ADMIN and nothing
else.

None of the three may be kept: the namespace of a container that has ended exists as long as one of them is open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host.netlink.entries import new_address, new_neighbour, new_route
from overlay.host.netlink.kernel import Kernel
from overlay.host.netlink.rtnetlink import (
    ADDRESS,
    ADDRESS_ATTRIBUTES_OFFSET,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    INTERFACE,
    LINK_ATTRIBUTES_OFFSET,
    NLM_F_DUMP,
    NUMBER,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWLINK,
    build_attribute,
    build_message,
    read_attributes,
    read_number,
)
from overlay.host.records import SO_NETNS_COOKIE
from overlay.linux import IFF_UP, NETLINK_HEADER, NLM_F_ACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from overlay.host.plan import IPAddress, IPNetwork

# Ours
GATEWAYS: dict[int, IPAddress] = {4: ip_address("169.254.1.1"), 6: ip_address("fe80::1")}
"""The gateways of each container, by IP version.  Calico's containers use 169.254.1.1, too."""
BOOT = 3  # RTPROT_BOOT (linux/rtnetlink.h), as of `ip route add`: the routes are the container's own


class ContainerNamespace:
    """The namespace of a container, given by descriptors, which stay open when this is closed."""

    def __init__(self, namespace: int, kernel: int, settings: int | None) -> None:
        """Take the descriptors of the namespace, a socket to the kernel in it, and its IPv6 settings.

        Raises HostError if they are something else, or the namespace is the host's own.
        """
        self.namespace = namespace
        self._settings = settings
        try:
            passed = socket.socket(fileno=os.dup(kernel))
        except OSError as error:
            raise _not_passed() from error
        try:
            if passed.family != socket.AF_NETLINK or passed.proto != socket.NETLINK_ROUTE:
                raise _not_passed()
            if _cookie_of(passed) == _own_cookie():
                raise HostError(
                    "the network namespace of the container is that of the host, where it needs no interface"
                )
            self._kernel = Kernel(passed)
        except OSError as error:
            passed.close()
            raise _not_passed() from error
        except BaseException:
            passed.close()
            raise

    def close(self) -> None:
        """Stop using the socket."""
        self._kernel.close()

    def link(self, name: str) -> tuple[int, bytes, int] | None:
        """Return index, Ethernet address and MTU of the interface *name*; None if there is none.  Raises OSError."""
        question = build_message(
            RTM_GETLINK,
            NLM_F_ACK,
            INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            build_attribute(IFLA_IFNAME, name.encode() + b"\0"),
        )
        try:
            (raw,) = self._kernel.ask(question)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        link = dict(read_attributes(raw, LINK_ATTRIBUTES_OFFSET))
        index = INTERFACE.unpack_from(raw, NETLINK_HEADER.size)[2]
        return index, link.get(IFLA_ADDRESS, b""), read_number(link.get(IFLA_MTU))

    def set_up(
        self, name: str, addresses: Iterable[IPAddress], networks: Sequence[IPNetwork], gateway_mac: bytes
    ) -> list[IPNetwork]:
        """Give the interface *name* its addresses, the gateways, and routes to *networks* through them.

        Returns the networks to which it made routes: a default route of another interface stays as it is.  Raises
        OSError, and HostError if an IPv6 address is to be set but the namespace has no IPv6.
        """
        found = self.link(name)
        if found is None:
            raise OSError(errno.ENODEV, f"{name} is not in the namespace that was passed")
        index = found[0]
        versions = {address.version for address in addresses}
        if 6 in versions:
            self._allow_ipv6(name)
        for address in addresses:
            self._kernel.do(new_address(index, address))
        self._kernel.do(
            build_message(RTM_NEWLINK, 0, INTERFACE.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP))
        )
        for version in sorted(versions):
            gateway = GATEWAYS[version]
            self._kernel.do(new_neighbour(index, gateway, gateway_mac))
            with contextlib.suppress(FileExistsError):  # of another interface: the routes below name this one
                self._kernel.do(new_route(index, ip_network(gateway), protocol=BOOT))
        made = []
        for network in networks:
            if network.version not in versions:
                continue
            try:
                self._kernel.do(new_route(index, network, gateway=GATEWAYS[network.version], protocol=BOOT))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            else:
                made.append(network)
        return made

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set the MTU of the interface *index*.  Raises OSError."""
        link = INTERFACE.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        self._kernel.do(build_message(RTM_NEWLINK, 0, link, build_attribute(IFLA_MTU, NUMBER.pack(mtu))))

    def addresses(self, index: int) -> set[IPAddress]:
        """Return the addresses of the interface *index*.  Raises OSError."""
        found = set()
        question = build_message(RTM_GETADDR, NLM_F_DUMP, ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, index))
        for raw in self._kernel.ask(question):
            if ADDRESS.unpack_from(raw, NETLINK_HEADER.size)[4] == index:
                each = dict(read_attributes(raw, ADDRESS_ATTRIBUTES_OFFSET))
                found.add(ip_address(each.get(IFA_LOCAL) or each[IFA_ADDRESS]))
        return found

    def _allow_ipv6(self, name: str) -> None:
        """Enable IPv6 on *name*, and ignore router advertisements: runtimes often disable IPv6 in a new namespace."""
        try:
            if self._settings is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            _write(self._settings, f"{name}/disable_ipv6", "0")
        except OSError as error:
            raise HostError(
                "the container has an IPv6 address, but its network namespace has no IPv6: enable IPv6 in this kernel, "
                "or take the IPv6 subnet from this host"
            ) from error
        with contextlib.suppress(OSError):
            _write(self._settings, f"{name}/accept_ra", "0")


def _write(directory: int, name: str, value: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _cookie_of(opened: socket.socket) -> bytes | None:
    """Return what identifies the namespace of *opened*; None before Linux 5.14."""
    try:
        return opened.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError:
        return None


def _own_cookie() -> bytes | str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        return _cookie_of(probe) or ""


def _not_passed() -> HostError:
    return HostError(
        "the request came without a network namespace: use the overlay-cni of the agent's version"
    )
