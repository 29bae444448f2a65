"""What the kernel has learned about path MTUs from ICMP errors: exceptions to its routes, which expire."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import dump_routes, versions
from overlay.host.netlink.rtnetlink import (
    CACHEINFO_EXPIRES,
    ROUTE_ATTRIBUTES_OFFSET,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_METRICS,
    RTAX_MTU,
    RTM_F_CLONED,
    read_attributes,
    read_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.host.netlink.kernel import Kernel

# Specification: include/asm-generic/param.h
TICKS = 100  # USER_HZ: how many of the kernel's units are a second, on every machine


@dataclass(frozen=True, slots=True)
class LearntMtu:
    """The size of the largest packet to an address, in bytes, and for how many more seconds it applies."""

    mtu: int
    seconds: float


def read_learnt(kernel: Kernel) -> Mapping[str, LearntMtu]:
    """Return what the kernel has learned, by address; nothing before Linux 5.3. Raises OSError."""
    found: dict[str, LearntMtu] = {}
    for version in versions():
        try:
            answers = dump_routes(kernel, version, flags=RTM_F_CLONED)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            continue
        for raw in answers:
            route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
            metrics = dict(read_attributes(route.get(RTA_METRICS, b""), 0))
            mtu, left = read_number(metrics.get(RTAX_MTU)), route.get(RTA_CACHEINFO, b"")[CACHEINFO_EXPIRES]
            ticks = int.from_bytes(left, sys.byteorder, signed=True)
            packed = route.get(RTA_DST)
            if not mtu or ticks <= 0 or packed is None:
                continue
            address = str(IPv4Address(packed) if version == 4 else IPv6Address(packed))
            before = found.get(address)
            if before is None or mtu < before.mtu:
                found[address] = LearntMtu(mtu, ticks / TICKS)
    return found
