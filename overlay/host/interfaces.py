"""Which interfaces and addresses this host has; "there is none" and "cannot be determined" are told apart.

socket.if_nametoindex() needs a descriptor of its own, and does not tell the two apart if it gets none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress
    from overlay.wire.addresses import Sockaddr

# Specification: linux/sockios.h, linux/if.h
SIOCGIFINDEX = 0x8933
SIOCSIFMTU = 0x8922
NAME_SIZE = 16  # bytes, with the null byte at the end
REQUEST = struct.Struct("16si20x")  # name, then index or MTU

# Ours
PROBED_PORT = 9  # discard; nothing is sent to it
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The errors of a kernel that has no resources to answer."""


def is_there(name: str) -> bool:
    """Return whether there is an interface *name*, of whatever kind.  Raises HostError if that cannot be determined."""
    return index_of(name) is not None


def index_of(name: str) -> int | None:
    """Return the index of the interface *name*; None if there is none.  Raises HostError if that cannot be
    determined.
    """
    encoded = name.encode(errors="surrogateescape")
    if not 0 < len(encoded) < NAME_SIZE or b"\0" in encoded:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            answer: bytes = fcntl.ioctl(asking, SIOCGIFINDEX, REQUEST.pack(encoded, 0))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise HostError(
            f"cannot tell whether interface {name} exists: {error.strerror}; {advice.after(error)}"
        ) from error
    index: int = REQUEST.unpack(answer)[1]
    return index


def set_mtu(name: str, mtu: int) -> None:
    """Set the MTU of the interface *name* to *mtu* bytes.  Raises HostError."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            fcntl.ioctl(asking, SIOCSIFMTU, REQUEST.pack(name.encode(), mtu))
    except OSError as error:
        raise HostError(f"interface {name} could not be given an MTU of {mtu}: {error.strerror}") from error


def is_own_address(address: IPAddress) -> bool:
    """Return whether *address* is one of this host's: a socket connected to it would send from it.  Sends nothing.

    Raises HostError if that cannot be determined, as without a free descriptor.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect(sockaddr_of(address, PROBED_PORT))
            host: str = probe.getsockname()[0]
    except OSError as error:
        if error.errno in SHORTAGES:
            raise HostError(
                f"cannot tell whether {address} is an address of this host: {error.strerror}; {advice.after(error)}"
            ) from error
        return False
    return host.partition("%")[0] == str(address).partition("%")[0]


def source_towards(host: str) -> str | None:
    """Return the address from which this host sends to the address *host*; None if no route leads there.  Sends
    nothing.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect((host, PROBED_PORT))
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return address.partition("%")[0]


def sockaddr_of(address: IPAddress, port: int) -> Sockaddr:
    """Return *address* and *port* in the form that socket functions accept.

    Raises OSError, ENODEV, if its scope is not an interface of this host, and HostError if that cannot be determined.
    """
    if isinstance(address, IPv4Address):
        return str(address), port
    if address.scope_id is None:
        return str(address), port, 0, 0
    scope = address.scope_id
    index = int(scope) if scope.isdigit() else index_of(scope)
    if index is None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return str(address).partition("%")[0], port, 0, index
