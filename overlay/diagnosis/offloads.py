"""Offloads of interfaces that were switched off."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host.link_state import below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts

# Ours
QUESTIONS = 64  # endpoints whose interface is queried
NEEDED = ("gso", "gro")  # on the underlay; the kernel does both in software if the hardware does not
OF_DEVICE = ("tso", "gso")  # of the node's own device


def check_offloads(facts: Facts) -> Iterator[Finding]:
    """Yield each interface on the path of packets that could segment or merge them but does not."""
    interfaces = facts.interfaces
    if interfaces is None:
        return
    wanted = dict.fromkeys(sorted(underlay_interfaces(facts)), NEEDED)
    if facts.is_set_up and facts.device.offloads.tcp:
        wanted[facts.device.name] = OF_DEVICE
    for name, offloads in wanted.items():
        states = interfaces.offloads(name)
        off = [each for each in offloads if states.get(each) is False]
        if off:
            switches = " ".join(f"{each} on" for each in off)
            yield Finding(
                "offloads_off",
                f"{' and '.join(each.upper() for each in off)} of {name} {'is' if len(off) == 1 else 'are'} disabled, "
                f"so packets pass one by one and throughput is lower",
                f"run `ethtool -K {name} {switches}`",
            )


def underlay_interfaces(facts: Facts) -> set[str]:
    """Return the interfaces through which datagrams leave for endpoints."""
    found = set()
    for _, sockaddr in islice(sorted(facts.endpoints), QUESTIONS):
        index = facts.routes.route_index(ip_address(sockaddr[0].partition("%")[0]), facts.plan.fwmark)
        if index is not None and index != facts.device.index:
            try:
                found.add(socket.if_indextoname(index))
            except OSError:  # gone meanwhile
                continue
    return found


def underlay_devices(facts: Facts) -> set[str]:
    """Return the underlay_interfaces(), and the interfaces that they are made of."""
    interfaces = underlay_interfaces(facts)
    return interfaces.union(*map(below, interfaces))
