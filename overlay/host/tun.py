"""The tun device: created by the agent, or found prepared, then read and written by the forwarder in super-packets.

A persistent device, made by an administrator with ``ip tuntap add``, stays when no process has it open.  Its owner may
attach to it without any privilege; everything else about it (addresses, routes, MTU) needs CAP_NET_ADMIN.

Each read and write carries a virtio header of 10 bytes, little endian, before the IP packet.

With several queues the kernel chooses the queue of a packet by a hash of its flow, the same in both directions.  From a
packet that is written to a queue it also learns to use that queue for the flow, and forgets it later; packets of a flow
that changes its queue may be reordered.  Packets are therefore written to a further queue that is detached, from which
the kernel learns nothing (``tun_get_user()`` in drivers/net/tun.c), so that a flow always stays in its queue.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import pwd
import re
import socket
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overlay.errors import ConfigError, HostError
from overlay.host import advice
from overlay.host.process.privileges import Capability
from overlay.linux import INTERFACE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable

# Specification: linux/if_tun.h and linux/virtio_net.h
IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_PERSIST = 0x0800  # reported by TUNGETIFF
IFF_NO_PI = 0x1000  # no protocol information before the packet
IFF_MULTI_QUEUE = 0x0100
IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE = 0x0200, 0x0400
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000  # refuse a name that exists, whatever kind of interface has it
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETVNETLE = 0x400454DC
TUNSETPERSIST = 0x400454CB
TUNSETQUEUE = 0x400454D9
TUNSETSNDBUF = 0x400454D4
TUNSETSTEERINGEBPF, TUNSETFILTEREBPF = 0x800454E0, 0x800454E1  # since Linux 4.16
TUNSETCARRIER = 0x400454E2  # since Linux 5.0
TUNGETIFF = 0x800454D2
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08
TUN_F_USO4 = 0x20  # since Linux 6.2, and only together with USO6
TUN_F_USO6 = 0x40
VIRTIO_HEADER_SIZE = 10

# Specification: linux/sockios.h, linux/ethtool.h
SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 3
IFREQ_POINTER = struct.Struct("16sP16x")
DRIVER_INFO = struct.Struct("=I32s32s32s32s64x")  # command, driver, version, firmware, bus: "tun" or "tap"

DEVICE = "/dev/net/tun"

# The characters that wg-quick accepts, so that a name works as a file name and in every tool.
INTERFACE_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
RESERVED_NAMES = {".", "..", "all", "default"}  # paths, and the two names with a meaning under /proc/sys/net


class RemovedError(HostError):
    """The interface is gone: another program removed it."""


@dataclass(frozen=True, slots=True)
class Offloads:
    """The unfinished packets that the kernel hands over and accepts.  Each feature needs *checksum*."""

    checksum: bool = False
    tcp: bool = False  # super-packets of TCP over IPv4 and IPv6
    ecn: bool = False  # super-packets whose first segment carries CWR
    udp: bool = False  # super-packets of UDP over IPv4 and IPv6

    @property
    def flags(self) -> int:
        """Return the argument of TUNSETOFFLOAD."""
        return (
            (TUN_F_CSUM if self.checksum else 0)
            | (TUN_F_TSO4 | TUN_F_TSO6 if self.tcp else 0)
            | (TUN_F_TSO_ECN if self.ecn else 0)
            | (TUN_F_USO4 | TUN_F_USO6 if self.udp else 0)
        )


# Best first.  Losing ECN only affects flows that were just marked, so UDP is worth more.
OFFLOAD_LADDER = (
    Offloads(checksum=True, tcp=True, ecn=True, udp=True),
    Offloads(checksum=True, tcp=True, udp=True),
    Offloads(checksum=True, tcp=True, ecn=True),
    Offloads(checksum=True, tcp=True),
    Offloads(checksum=True),
    Offloads(),
)


@dataclass(frozen=True, slots=True)
class Tun:
    """One tun device.  It exists while a process has its descriptor, and vanishes with its addresses and routes.

    A persistent one stays, with its addresses and routes.
    """

    name: str
    index: int
    descriptor: int
    offloads: Offloads
    is_persistent: bool = False
    others: tuple[int, ...] = ()
    """The descriptors of further queues to read from, then that of the queue to write to, if there are any."""

    @property
    def descriptors(self) -> list[int]:
        """All descriptors: those to read from and, if there are several, then the one to write to."""
        return [self.descriptor, *self.others]

    @property
    def queues(self) -> int:
        """How many queues to read from there are."""
        return max(1, len(self.others))

    def fileno(self) -> int:
        """Return the descriptor, which is in non-blocking mode."""
        return self.descriptor

    def name_now(self) -> str:
        """Return the current name of the interface, or its original name if that cannot be determined, as without a
        free descriptor.

        Raises HostError if somebody removed it.
        """
        try:
            return socket.if_indextoname(self.index)
        except OSError as error:
            if error.errno not in {errno.ENODEV, errno.ENXIO}:
                return self.name
            raise RemovedError(
                f"interface {self.name} was removed by another program: start the agent again"
            ) from error

    def check_present(self) -> None:
        """Raise HostError if somebody removed or renamed the interface."""
        present = self.name_now()
        if present != self.name:
            gone = OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            raise HostError(
                f"interface {self.name} is now called {present}: name it {self.name} again, or start the agent again"
            ) from gone

    def restore(self) -> None:
        """Set the descriptor up as open_tun() returned it, whatever a process with a copy of it has changed.

        Raises HostError if the interface is gone.
        """
        whole, none = struct.pack("i", 0x7FFFFFFF), struct.pack("i", -1)
        try:
            for each in self.descriptors:
                _set_flags(each)
            self._attach()
            _set_header(self.descriptor)
            fcntl.ioctl(self.descriptor, TUNSETOFFLOAD, self.offloads.flags)
            fcntl.ioctl(self.descriptor, TUNSETPERSIST, int(self.is_persistent))
            fcntl.ioctl(self.descriptor, TUNSETSNDBUF, whole)
        except OSError as error:
            raise HostError(
                f"interface {self.name} could not be prepared again: {error.strerror}; see whether it still exists"
            ) from error
        for request in (TUNSETSTEERINGEBPF, TUNSETFILTEREBPF):
            with contextlib.suppress(OSError):  # unknown to this kernel
                fcntl.ioctl(self.descriptor, request, none)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.descriptor, TUNSETCARRIER, struct.pack("i", 1))

    def _attach(self) -> None:
        """Attach the queues to read from, and detach the one to write to."""
        if not self.others:
            return
        for each in self.descriptors:
            wanted = IFF_DETACH_QUEUE if each == self.others[-1] else IFF_ATTACH_QUEUE
            with contextlib.suppress(OSError):  # EINVAL: it is in that state already
                fcntl.ioctl(each, TUNSETQUEUE, INTERFACE_FLAGS.pack(b"", wanted))

    def close(self) -> None:
        """Close this process's descriptors; unless it is persistent, the device goes with the last one."""
        if self.is_persistent:
            with contextlib.suppress(OSError):  # removed by somebody else
                # The next program may read it without a virtio header, and must get no super-packets.
                fcntl.ioctl(self.descriptor, TUNSETOFFLOAD, 0)
        for each in self.descriptors:
            os.close(each)


def check_interface_name(name: str) -> None:
    """Refuse a name that would break Linux tools or a shell.  Raises ConfigError."""
    if name in RESERVED_NAMES:
        raise ConfigError(
            f"{name!r} cannot name an interface: Linux has another meaning for it; choose another, such as overlay0"
        )
    if not INTERFACE_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name an interface: choose 1 to 15 letters, digits or _=+.-, such as overlay0"
        )


def open_tun(name: str, device: str = DEVICE, *, is_tap: bool = False, queues: int = 1) -> Tun:
    """Create the tun device *name*, down and without addresses, or attach to the persistent one of that name.

    It gets every offload the kernel grants.  With *is_tap* it is a tap, which carries Ethernet frames; offsets in the
    virtio header count from the start of the frame.  It has *queues* queues, or one if a persistent device was made so.
    Raises ConfigError for a bad name, and HostError when the kernel refuses, also for an interface of another kind, one
    that another process uses, and one that belongs to another user.
    """
    check_interface_name(name)
    mode = "tap" if is_tap else "tun"
    kind = IFF_TAP if is_tap else IFF_TUN
    descriptor = _open(device)
    try:
        flags = _create_or_attach(descriptor, name, kind | (IFF_MULTI_QUEUE if queues > 1 else 0))
        _set_header(descriptor)
        index = socket.if_nametoindex(name)
    except OSError as error:
        os.close(descriptor)
        if queues > 1 and error.errno == errno.EINVAL:
            return open_tun(name, device, is_tap=is_tap)
        raise HostError(_interface_refused(name, mode, error)) from error
    offloads = negotiate_offloads(lambda flags: fcntl.ioctl(descriptor, TUNSETOFFLOAD, flags))
    tun = Tun(name, index, descriptor, offloads, bool(flags & IFF_PERSIST))
    if queues == 1:
        return tun
    others: list[int] = []
    try:
        for _ in range(queues):
            others.append(_open(device))
            _attach(others[-1], name, kind | IFF_MULTI_QUEUE)
        fcntl.ioctl(others[-1], TUNSETQUEUE, INTERFACE_FLAGS.pack(b"", IFF_DETACH_QUEUE))
    except (HostError, OSError) as error:
        for each in others:
            os.close(each)
        tun.close()
        if isinstance(error, HostError):
            raise
        raise HostError(_interface_refused(name, mode, error)) from error
    return replace(tun, others=tuple(others))


def _open(device: str) -> int:
    try:
        return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(_device_refused(device, error)) from error


def _set_header(descriptor: int) -> None:
    """Set a virtio header of ten bytes, little endian, before each packet."""
    fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", VIRTIO_HEADER_SIZE))
    fcntl.ioctl(descriptor, TUNSETVNETLE, struct.pack("i", 1))


def _set_flags(descriptor: int) -> None:
    """Make *descriptor* non-blocking, and without signals."""
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, 0)


def _create_or_attach(descriptor: int, name: str, kind: int) -> int:
    """Attach *descriptor* to the tun *name*; return its flags.

    The flags belong to the attachment, whatever ``ip tuntap`` was told: a device that was made with protocol
    information or without a virtio header works, too.
    """
    try:
        return _attach(descriptor, name, kind | IFF_TUN_EXCL)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    flags = _attach(descriptor, name, kind)
    if (
        kind & IFF_MULTI_QUEUE and not flags & IFF_PERSIST
    ):  # the kernel lets any number of processes have queues
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    return flags


def _attach(descriptor: int, name: str, kind: int) -> int:
    flags = kind | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(descriptor, TUNSETIFF, INTERFACE_FLAGS.pack(name.encode(), flags))
    attached: bytes = fcntl.ioctl(descriptor, TUNGETIFF, bytes(INTERFACE_FLAGS.size))
    return int(INTERFACE_FLAGS.unpack(attached)[1])


def negotiate_offloads(set_offload: Callable[[int], object]) -> Offloads:
    """Return the best step of OFFLOAD_LADDER that *set_offload* accepted without an OSError; the last step has no
    offloads.
    """
    for offloads in OFFLOAD_LADDER:
        try:
            set_offload(offloads.flags)
        except OSError:
            continue
        return offloads
    return Offloads()


def _device_refused(device: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"{device} does not exist: load the tun module (modprobe tun), or give the container that device"
        case errno.ENODEV | errno.ENXIO:
            return f"{device} has no driver: load the tun module (modprobe tun)"
        case errno.EACCES | errno.EPERM:
            return (
                f"{device} may not be opened: {advice.gain(Capability.NET_ADMIN)} and let the container use the "
                f"device, or have root let everybody open it (chmod 666 {device}), "
                "which by itself lets nobody create an interface"
            )
        case _:
            return f"{device} could not be opened: {error.strerror}"


def _interface_refused(name: str, mode: str, error: OSError) -> str:
    driver = driver_of(name)
    other = "choose another with --interface"
    if driver is not None and driver[0] == "tun":  # others, such as lo, are the host's
        other += f", or remove it (ip link delete {name})"
    match error.errno:
        case errno.EINVAL if driver == ("tun", mode):
            return (
                f"interface {name} is a multi-queue {mode} device, and this agent has one lane: {other} "
                "and make it without multi_queue, or run with --lanes 2"
            )
        case errno.EBUSY | errno.EEXIST | errno.EINVAL if driver is not None and driver != ("tun", mode):
            kind = driver[1] if driver[0] == "tun" else driver[0]
            return f"interface {name} exists already and is of the kind {kind}, not a {mode} device: {other}"
        case errno.EBUSY:
            return (
                f"interface {name} exists already and another process holds it: stop that, "
                "or choose another with --interface"
            )
        case errno.EEXIST | errno.EINVAL:
            return f"interface {name} exists already: {other}"
        case errno.EPERM | errno.EACCES if driver is not None:
            return (
                f"interface {name} belongs to another user or group: run as that one, or have root create it again "
                f"(ip tuntap del dev {name} mode {mode}; ip tuntap add dev {name} mode {mode} user {_user()})"
            )
        case errno.EPERM | errno.EACCES:
            return (
                f"interface {name} may not be created: {advice.gain(Capability.NET_ADMIN)}, "
                f"or {prepared(name, mode)}"
            )
        case _:
            return f"interface {name} could not be created: {error.strerror}"


def prepared(name: str, mode: str) -> str:
    """Return what root can do so that this user gets the interface *name*, as the end of a sentence."""
    return f"have root make the interface for this user ({tuntap(name, mode)})"


def tuntap(name: str, mode: str) -> str:
    """Return the command with which root makes the interface *name* for this user."""
    return f"ip tuntap add dev {name} mode {mode} user {_user()}"


def _user() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def driver_of(name: str) -> tuple[str, str] | None:
    """Return the driver of the interface *name* and its bus, such as ``("tun", "tap")``; None if that is not known."""
    answer = array.array("B", DRIVER_INFO.pack(ETHTOOL_GDRVINFO, b"", b"", b"", b""))
    question = IFREQ_POINTER.pack(name.encode(), answer.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            fcntl.ioctl(asking, SIOCETHTOOL, question)
    except OSError:
        return None
    _, driver, _, _, bus = DRIVER_INFO.unpack(answer.tobytes())
    return driver.partition(b"\0")[0].decode(errors="replace"), bus.partition(b"\0")[0].decode(
        errors="replace"
    )
