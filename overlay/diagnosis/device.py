"""Limits of our own device and sockets on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts


def check_device(facts: Facts) -> Iterator[Finding]:
    """Yield what the tun and the underlay sockets lack, or what makes them slower than possible."""
    device = facts.device.name
    if (
        facts.is_set_up
        and not facts.node.is_down  # another program brings it up, and has not done so yet
        and facts.lacking is None
        and facts.interfaces is not None
        and not facts.interfaces.is_up(device)
    ):
        yield Finding(
            "device_down",
            f"{device} is down, so nothing passes the tunnel",
            f"run `ip link set {device} up`",
        )
    offloads = facts.device.offloads
    if not (offloads.tcp and offloads.udp):
        missing = "UDP" if offloads.tcp else "TCP and UDP"
        yield Finding(
            "tun_offloads",
            f"this kernel does not support {missing} segmentation offload on tun devices: throughput is lower",
        )
    if not all(each.can_segment and each.can_coalesce for each in facts.udp):
        yield Finding(
            "udp_offloads",
            "this kernel does not support UDP segmentation offload on sockets: throughput is lower",
        )
    if facts.is_icmp_refused:
        yield Finding(
            "icmp_source", "without CAP_NET_RAW, ICMP errors carry the unreachable address as their source"
        )
    if facts.lacking is not None:
        yield Finding("device_prepared", facts.lacking)
