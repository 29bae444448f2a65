"""Packets between subnets of this host and peers that routing rules lead elsewhere than the host's own packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.firewall import pairs
from overlay.host.netlink.route_lookup import RouteOutcome, RouteQuery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts
    from overlay.host.netlink.route_lookup import RouteResult


def check_forwarded(facts: Facts) -> Iterator[Finding]:
    """Yield findings on packets that this host forwards, if a rule for them leads past the tunnel.

    One packet in each direction between each subnet that an interface leads to and a peer is looked up.  A host that
    does not forward is not examined, and routes that also take its own packets are reported by check_routes().
    """
    if facts.way is None or facts.node.is_tap or not facts.is_set_up or facts.lacking is not None:
        return
    device = facts.device.name
    for own, inside, peer in pairs(facts):
        route = facts.routes.match(peer)
        if route is None or route.index != facts.device.index:
            continue
        for question, leads in (
            (RouteQuery(peer, own, inside), device),
            (RouteQuery(own, peer, device), inside),
        ):
            finding = _describe(facts, question, facts.way(question), leads)
            if finding is not None:
                yield finding
                break  # the way back is judged by the same rules


def _describe(facts: Facts, question: RouteQuery, way: RouteResult, leads: str) -> Finding | None:
    """Return what is wrong if packets as in *question* do not go by the interface *leads*; None if they do."""
    packets = f"packets from {question.source} to {question.destination} that come in by {question.enters}"
    ip = "ip" if question.destination.version == 4 else "ip -6"
    if way.outcome is RouteOutcome.OUT and way.interface != leads:
        past = ", past the tunnel and unencrypted" if leads == facts.device.name else f" and not by {leads}"
        table = "" if way.table is None else f", by table {way.table}"
        return Finding(
            "route_taken",
            f"a routing rule of this host sends {packets} out by {way.interface}{table}{past}",
            f"see `{ip} rule`: remove the rule, or put one for the networks of the overlay before it",
        )
    if way.outcome in {RouteOutcome.PROHIBITED, RouteOutcome.DISCARDED, RouteOutcome.REVERSE_PATH}:
        return Finding(
            "route_refused",
            f"a rule, a route or the reverse path check of this host rejects {packets}",
            f"find it with `{ip} rule` and `{ip} route show match {question.destination} table all`, and remove it",
        )
    return None
