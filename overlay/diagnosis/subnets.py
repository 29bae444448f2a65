"""Subnets of this host without a route on it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts
    from overlay.host.plan import IPNetwork

# Ours
QUESTIONS = 16  # subnets that are tried
SAMPLES = 3  # addresses of one: the first may be the node's own


def check_subnets(facts: Facts) -> Iterator[Finding]:
    """Yield the node's subnets that neither an interface nor a route of this host leads to: their packets are dropped.

    With a tap no route is needed, nor for an address of the host itself.
    """
    if facts.node.is_tap or not facts.is_set_up:
        return
    links = [link.network for link in facts.routes.links()]
    nowhere: list[str] = []
    for subnet in islice(facts.node.own.subnets, QUESTIONS):
        inside = any(
            link.version == subnet.version and link.overlaps(subnet) and link.prefixlen for link in links
        )
        if subnet.num_addresses > 1 and subnet.prefixlen and not inside and not _leads_on(facts, subnet):
            nowhere.append(str(subnet))
    if nowhere:
        is_one = len(nowhere) == 1
        yield Finding(
            "subnet_nowhere",
            f"{' and '.join(nowhere)} {'is a subnet' if is_one else 'are subnets'} of this node, but no interface and "
            f"no route of this host leads there, so packets for {'it' if is_one else 'them'} are dropped",
            "give an interface, such as a bridge for containers, an address there, or add a route",
        )


def _leads_on(facts: Facts, subnet: IPNetwork) -> bool:
    """Return whether a route of the host itself leads to *subnet*: neither the default route nor one into the
    tunnel.
    """
    for offset in range(1, min(1 + SAMPLES, subnet.num_addresses)):
        route = facts.routes.match(subnet.network_address + offset)
        if route is not None and route.index != facts.device.index and route.network.prefixlen:
            return True
    return False
