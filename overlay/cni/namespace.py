"""The network namespace of a container: what the agent needs of it, opened by a process that may enter it.

The agent has no privilege to enter namespaces, and may not see the path: it gets the namespace, a socket to the kernel
that was opened in it, and the directory of its IPv6 settings, all as descriptors.
"""

from __future__ import annotations

import _socket  # socket makes enumerations of all constants, which takes longer than the question to the agent
import contextlib
import os
import struct

from overlay.cni.errors import INVALID_ENVIRONMENT, IO_FAILURE, UNKNOWN_CONTAINER, PluginError

# Specification: linux/sched.h, linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
CLONE_NEWNET = 0x40000000
LINK_MESSAGE = struct.Struct("=IHHIIBxHiII")  # struct nlmsghdr, struct ifinfomsg
RTM_DELLINK, RTM_GETLINK = 17, 18
NLM_F_REQUEST, NLM_F_ACK = 1, 4
IFLA_ADDRESS, IFLA_IFNAME = 1, 3
ATTRIBUTE = struct.Struct("=HH")

# Ours
IPV6_SETTINGS = "/proc/sys/net/ipv6/conf"
RECEIVE_SIZE = 32 * 1024
PATIENCE = 5.0  # seconds


def enter(path: str) -> list[int]:
    """Enter the namespace at *path*, for good; return the descriptors to pass.  Raises PluginError."""
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise PluginError(
            UNKNOWN_CONTAINER, f"CNI_NETNS {path[:200]!r} could not be opened", str(error)[:200]
        ) from None
    try:
        _setns(namespace)
    except OSError as error:
        raise PluginError(
            INVALID_ENVIRONMENT, f"CNI_NETNS {path[:200]!r} could not be entered: {error.strerror}"
        ) from None
    found = [namespace, _kernel().detach()]
    with contextlib.suppress(OSError):  # a kernel without IPv6
        found.append(os.open(IPV6_SETTINGS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return found


def remove(path: str, interface: str, mac: str) -> None:
    """Remove the *interface* in the namespace at *path* if it has that Ethernet address; it may be gone already.

    For when no agent runs: the host's end is removed with this end.
    """
    try:
        enter(path)
    except PluginError:
        return
    with contextlib.closing(_kernel()) as kernel:
        kernel.settimeout(PATIENCE)
        name = _attribute(IFLA_IFNAME, interface.encode() + b"\0")
        answer = _ask(kernel, RTM_GETLINK, name)
        if _attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) in answer:
            _ask(kernel, RTM_DELLINK, name)


def _kernel() -> _socket.socket:
    try:
        return _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.NETLINK_ROUTE
        )
    except OSError as error:
        raise PluginError(IO_FAILURE, f"no socket to the kernel in the namespace: {error.strerror}") from None


def _ask(kernel: _socket.socket, kind: int, attribute: bytes) -> bytes:
    size = LINK_MESSAGE.size + len(attribute)
    flags = NLM_F_REQUEST | (NLM_F_ACK if kind == RTM_DELLINK else 0)
    kernel.sendto(LINK_MESSAGE.pack(size, kind, flags, 1, 0, 0, 0, 0, 0, 0) + attribute, (0, 0))
    return kernel.recv(RECEIVE_SIZE)


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) & 3)


def _setns(descriptor: int) -> None:
    if hasattr(os, "setns"):  # since Python 3.12
        os.setns(descriptor, CLONE_NEWNET)
        return
    # Python 3.11: what ctypes would do, without its Python half, which takes as long to load as this whole package.
    import _ctypes  # noqa: PLC0415

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # it takes none until it runs
        _type_ = "i"

    class Call(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    program = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # None is this process, libc with it
    setns = Call(_ctypes.dlsym(program, "setns"))
    if setns(Int(descriptor), Int(CLONE_NEWNET)) != 0:
        code = _ctypes.get_errno()
        raise OSError(code, os.strerror(code))
