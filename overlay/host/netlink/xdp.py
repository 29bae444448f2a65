"""XDP programs, which a network card, or the kernel for it, runs for each packet before anything else sees it."""

from __future__ import annotations

import contextlib
import socket
import struct

from overlay.host.netlink.kernel import Kernel
from overlay.host.netlink.rtnetlink import (
    INTERFACE,
    LINK_ATTRIBUTES_OFFSET,
    RTM_GETLINK,
    build_message,
    read_attributes,
    read_number,
)
from overlay.linux import NLM_F_ACK

# Specification: linux/if_link.h, linux/netlink.h
IFLA_XDP = 43
# The program, and those of the modes if there are several: by the kernel, the driver and the hardware
IFLA_XDP_PROG_ID, OF_MODES = 4, (5, 6, 7)
NLA_F_NESTED = 1 << 15


def read_programs(name: str) -> list[int]:
    """Return the numbers of the XDP programs of the interface *name*; empty if the kernel does not report them."""
    with contextlib.suppress(OSError, ValueError, struct.error), contextlib.closing(Kernel()) as kernel:
        index = socket.if_nametoindex(name)
        (raw,) = kernel.ask(build_message(RTM_GETLINK, NLM_F_ACK, INTERFACE.pack(0, 0, index, 0, 0)))
        return programs_of(raw)
    return []


def programs_of(message: bytes) -> list[int]:
    """Return the numbers of the XDP programs in the kernel's *message* about an interface."""
    link = {kind & ~NLA_F_NESTED: value for kind, value in read_attributes(message, LINK_ATTRIBUTES_OFFSET)}
    attached = dict(read_attributes(link.get(IFLA_XDP, b""), 0))
    numbers = (read_number(attached.get(kind)) for kind in (IFLA_XDP_PROG_ID, *OF_MODES))
    return sorted({number for number in numbers if number})
