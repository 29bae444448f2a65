"""IPv6 that is in the peers file but not available on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts


def check_ipv6(facts: Facts) -> Iterator[Finding]:
    """Yield that IPv6 does not work through the tunnel, if the peers file has IPv6 destinations."""
    plan = facts.plan
    prefix = next((each for each in (*plan.routes, *plan.policy_routes) if each.version == 6), None)
    if prefix is None or not facts.is_set_up:
        return  # an agent with the privilege enables it
    name = f"ipv6/conf/{facts.device.name}/disable_ipv6"
    if facts.read(name) == 1:
        yield Finding(
            "ipv6_disabled",
            f"IPv6 is disabled on {facts.device.name}, so {prefix} and other IPv6 networks of the peers file "
            "cannot be reached",
            f"run `sysctl -w {sysctl.key(name)}=0`, or remove these prefixes from the peers file",
        )
