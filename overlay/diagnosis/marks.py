"""Firewall marks of the node's own datagrams that other rules use: usually those of another VPN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts


def check_marks(facts: Facts) -> Iterator[Finding]:
    """Yield the first rule of another program that treats the node's datagrams as its own.

    The mark of a bare node was chosen by the program that makes the rules, usually `wg-quick`.
    """
    mark = None if facts.node.is_bare else facts.plan.fwmark
    rule = next((each for each in facts.routes.marked_rules() if mark and each.regards(mark)), None)
    if rule is not None:
        way = "past" if rule.is_inverted else "by"
        yield Finding(
            "mark_shared",
            f"a routing rule of another program (priority {rule.priority}) matches the firewall mark {mark}, which "
            f"this node's datagrams have too, so they go {way} table {rule.table}",
            "unless that is meant, write another fwmark under [network] in the peers file",
        )
