"""The table of connection tracking: when it is full, packets of new connections are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts

# Ours
FULL = 0.95  # of the entries


def check_conntrack(facts: Facts) -> Iterator[Finding]:
    """Yield that packets of new connections are dropped, or will be soon."""
    count, most = (facts.read(f"netfilter/nf_conntrack_{each}") for each in ("count", "max"))
    if count is not None and most and count >= FULL * most:
        yield Finding(
            "conntrack_full",
            f"the table of connection tracking of this host has {count} of {most} entries, and drops packets of new "
            "connections when it is full",
            f"run `sysctl -w net.netfilter.nf_conntrack_max={4 * most}`, or see with `conntrack -L` who opens so many",
        )
