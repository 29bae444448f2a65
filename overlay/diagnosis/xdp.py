"""XDP programs on the path of packets; their verdicts are not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.offloads import underlay_devices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts


def check_xdp(facts: Facts) -> Iterator[Finding]:
    """Yield each interface of the underlay, and the node's own device, with an XDP program."""
    if facts.interfaces is None:
        return
    for name in [*sorted(underlay_devices(facts)), *([facts.device.name] if facts.is_set_up else [])]:
        programs = facts.interfaces.xdp_programs(name)
        if programs:
            shown = f"`bpftool prog show id {programs[0]}`"
            yield Finding(
                "xdp",
                f"an XDP program is attached to {name}; it sees each packet that arrives there before this host does, "
                "and may drop it, which cannot be seen here",
                f"if a peer is silent, see what it is with {shown}, and whether `ip link set dev {name} xdp off` helps",
            )
